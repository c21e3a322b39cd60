// Puts a graph together node by node: for views that are made of another graph.

import { buildGraph, type FlameGraph, type Frame } from './graph';

/** What `build` makes, and where the nodes that were added went. */
export interface Built {
  readonly graph: FlameGraph;
  /** Number given by `child`, by node of the graph. */
  readonly added: Uint32Array;
}

/** A tree that grows. Node 0 is its root. */
export class TreeBuilder {
  private readonly children = new ChildTable();
  private readonly frameOf: number[] = [0];
  private readonly firstChild: number[] = [-1];
  private readonly sibling: number[] = [-1];
  private readonly selfOf: number[] = [0];

  /** `frames[rootFrame]` is the root's. */
  constructor(
    private readonly frames: readonly Frame[],
    rootFrame = 0,
  ) {
    this.frameOf[0] = rootFrame;
  }

  get size(): number {
    return this.frameOf.length;
  }

  /** The child of `parent` with this frame, which is added if there is none. */
  child(parent: number, frame: number): number {
    const node = this.frameOf.length;
    const known = this.children.findOrAdd(parent, frame, node);
    if (known !== node) return known;
    this.frameOf.push(frame);
    this.selfOf.push(0);
    this.firstChild.push(-1);
    this.sibling.push(this.firstChild[parent]!);
    this.firstChild[parent] = node;
    return node;
  }

  addSelf(node: number, value: number): void {
    this.selfOf[node]! += value;
  }

  /** Children come in the order of their names. */
  build(): Built {
    const rank = ranksByName(this.frames);
    const count = this.size;
    const frame = new Uint32Array(count);
    const depth = new Uint16Array(count);
    const self = new Float64Array(count);
    const added = new Uint32Array(count);
    const waiting = [0];
    const depths = [0];
    let node = 0;
    for (let from = waiting.pop(); from !== undefined; from = waiting.pop()) {
      const d = depths.pop()!;
      frame[node] = this.frameOf[from]!;
      depth[node] = d;
      self[node] = this.selfOf[from]!;
      added[node] = from;
      node++;
      const children: number[] = [];
      for (let child = this.firstChild[from]!; child >= 0; child = this.sibling[child]!) children.push(child);
      // Last first, since what is pushed last is taken first.
      children.sort((one, other) => rank[this.frameOf[other]!]! - rank[this.frameOf[one]!]!);
      for (const child of children) {
        waiting.push(child);
        depths.push(d + 1);
      }
    }
    return { graph: buildGraph(this.frames, frame, depth, self), added };
  }
}

function ranksByName(frames: readonly Frame[]): Uint32Array {
  const order = frames.map((_, index) => index);
  order.sort((one, other) => {
    const a = frames[one]!.name;
    const b = frames[other]!.name;
    return a < b ? -1 : a > b ? 1 : one - other;
  });
  const rank = new Uint32Array(frames.length);
  order.forEach((frame, position) => (rank[frame] = position));
  return rank;
}

/**
 * (parent, frame) → child, by open addressing. A `Map` would need one number for each pair, which is no
 * small integer any more, and takes ten times as long for a million nodes.
 */
class ChildTable {
  private used = 0;
  private mask = 1023;
  private parents = new Uint32Array(1024);
  private frames = new Uint32Array(1024);
  /** 0 is free: the root is nobody's child. */
  private nodes = new Uint32Array(1024);

  findOrAdd(parent: number, frame: number, node: number): number {
    if (this.used * 2 > this.mask) this.grow();
    const slot = this.slotOf(parent, frame);
    const known = this.nodes[slot]!;
    if (known !== 0) return known;
    this.used++;
    this.parents[slot] = parent;
    this.frames[slot] = frame;
    this.nodes[slot] = node;
    return node;
  }

  /** Where the pair is, or where it would be put. */
  private slotOf(parent: number, frame: number): number {
    let hash = Math.imul(parent, 0x9e3779b1) ^ Math.imul(frame, 0x85ebca77);
    hash ^= hash >>> 15;
    let slot = hash & this.mask;
    while (this.nodes[slot] !== 0 && (this.parents[slot] !== parent || this.frames[slot] !== frame)) {
      slot = (slot + 1) & this.mask;
    }
    return slot;
  }

  private grow(): void {
    const { parents, frames, nodes } = this;
    const size = (this.mask + 1) * 2;
    this.mask = size - 1;
    this.parents = new Uint32Array(size);
    this.frames = new Uint32Array(size);
    this.nodes = new Uint32Array(size);
    nodes.forEach((node, old) => {
      if (node === 0) return;
      const slot = this.slotOf(parents[old]!, frames[old]!);
      this.parents[slot] = parents[old]!;
      this.frames[slot] = frames[old]!;
      this.nodes[slot] = node;
    });
  }
}
