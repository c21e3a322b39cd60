// Functions, which are what people ask about: a frame that is inlined in one place and called in another
// is the same function, and so is one of two builds of an object.

import { FrameClass, type FlameGraph, type Frame } from './graph';
import { TreeBuilder } from './merge';

/** What tells one function from another, also across two profiles. */
export function functionKey(frame: Frame): string {
  return `${frame.name}\0${frame.module}`;
}

export interface Functions {
  /** Function of each frame. */
  readonly ofFrame: Uint32Array;
  /** One frame of each function; not an inlined one, if there is a choice. */
  readonly frameOf: Uint32Array;
  /** The function of a key. */
  readonly ofKey: ReadonlyMap<string, number>;
}

const known = new WeakMap<readonly Frame[], Functions>();

/** Groups frames into functions; remembered for each frame table. */
export function functionsOf(frames: readonly Frame[]): Functions {
  const before = known.get(frames);
  if (before !== undefined) return before;
  const byKey = new Map<string, number>();
  const ofFrame = new Uint32Array(frames.length);
  const frameOf: number[] = [];
  frames.forEach((frame, index) => {
    const key = functionKey(frame);
    let id = byKey.get(key);
    if (id === undefined) {
      id = frameOf.length;
      byKey.set(key, id);
      frameOf.push(index);
    } else if (frames[frameOf[id]!]!.frameClass === FrameClass.Inlined) {
      frameOf[id] = index;
    }
    ofFrame[index] = id;
  });
  const functions = { ofFrame, frameOf: Uint32Array.from(frameOf), ofKey: byKey };
  known.set(frames, functions);
  return functions;
}

/** The function with this key, else one of its name in another object, else -1. */
export function findFunction(frames: readonly Frame[], key: string): number {
  const { frameOf, ofKey } = functionsOf(frames);
  const exact = ofKey.get(key);
  if (exact !== undefined) return exact;
  if (key === '') return -1;
  const name = key.slice(0, key.indexOf('\0'));
  return frameOf.findIndex((frame) => frames[frame]!.name === name);
}

export interface FunctionTotals {
  /** By function: what was spent in it itself. */
  readonly self: Float64Array;
  /** By function: that and what it called. A function that calls itself is counted once. */
  readonly total: Float64Array;
}

/** The figures of the top table; of other values than the graph's own, only their totals. Linear. */
export function functionTotals(graph: FlameGraph, totals = graph.total): FunctionTotals {
  const { ofFrame, frameOf } = functionsOf(graph.frames);
  const self = new Float64Array(frameOf.length);
  const total = new Float64Array(frameOf.length);
  const openTimes = new Uint32Array(frameOf.length);
  const openAt = new Uint32Array(graph.maxDepth + 1);
  const selfOfNode = totals === graph.total ? graph.self : totals;
  let openDepth = -1;
  for (let node = 0; node < graph.nodeCount; node++) {
    const depth = graph.depth[node]!;
    for (; openDepth >= depth; openDepth--) openTimes[openAt[openDepth]!]!--;
    const id = ofFrame[graph.frame[node]!]!;
    self[id]! += selfOfNode[node]!;
    if (openTimes[id] === 0) total[id]! += totals[node]!;
    openTimes[id]!++;
    openAt[depth] = id;
    openDepth = depth;
  }
  return { self, total };
}

/** The outermost nodes of a function: those that are below no other of the same. */
export function outermostNodes(graph: FlameGraph, id: number): number[] {
  const { ofFrame } = functionsOf(graph.frames);
  const nodes: number[] = [];
  for (let node = 0; node < graph.nodeCount; ) {
    if (ofFrame[graph.frame[node]!] === id) {
      nodes.push(node);
      node = graph.end[node]!;
    } else {
      node++;
    }
  }
  return nodes;
}

export interface Sandwich {
  /** Root: the function. Below it its callers, below them theirs. */
  readonly callers: FlameGraph;
  /** Root: the function. Below it what it calls. */
  readonly callees: FlameGraph;
}

/**
 * Everything above and everything below a function, merged over all places where it occurs. Below another
 * call of itself it is a callee and not counted again, so that both totals are the one of the top table.
 */
export function sandwich(graph: FlameGraph, id: number): Sandwich {
  const { frameOf } = functionsOf(graph.frames);
  const root = frameOf[id]!;
  const { self, parent } = graph;
  const callers = new TreeBuilder(graph.frames, root);
  const callees = new TreeBuilder(graph.frames, root);
  const at = new Uint32Array(graph.maxDepth + 1);
  for (const top of outermostNodes(graph, id)) {
    const topDepth = graph.depth[top]!;
    at[topDepth] = 0;
    callees.addSelf(0, self[top]!);
    for (let node = top + 1; node < graph.end[top]!; node++) {
      const depth = graph.depth[node]!;
      const merged = callees.child(at[depth - 1]!, graph.frame[node]!);
      at[depth] = merged;
      callees.addSelf(merged, self[node]!);
    }
    let caller = 0;
    for (let up = parent[top]!; up !== 0; up = parent[up]!) {
      caller = callers.child(caller, graph.frame[up]!);
    }
    callers.addSelf(caller, graph.total[top]!);
  }
  return { callers: callers.build().graph, callees: callees.build().graph };
}
