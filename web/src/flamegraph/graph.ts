// A flame graph in typed arrays. Nodes stand depth first, so that everything below node `n` is the run
// from `n + 1` to `end[n]`, the first child of `n` is `n + 1`, and the sibling after a child `c` is
// `end[c]`. Nothing here allocates per node.

/** What sort of code a frame is. The numbers are those of the columnar file. */
export const FrameClass = {
  Root: 0,
  Native: 1,
  Inlined: 2,
  Kernel: 3,
  Jit: 4,
  Interpreter: 5,
  Label: 6,
  Incomplete: 7,
  Smaller: 8,
} as const;
export type FrameClass = (typeof FrameClass)[keyof typeof FrameClass];

/** A row of the frame table. */
export interface Frame {
  readonly name: string;
  readonly frameClass: FrameClass;
  /** Whether `name` is an address because no name was found. */
  readonly unnamed: boolean;
  /** Whether some sample has it by the runtime's nearest record alone, not by one of the very instruction. */
  readonly approximate: boolean;
  /** Source file, empty if unknown. */
  readonly file: string;
  /** First line of the function, 0 if unknown. */
  readonly line: number;
  /** Path of the object; the key of a label; the explanation of an incomplete stack and of smaller ones. */
  readonly module: string;
  readonly buildId: string;
}

const NO_CODE: ReadonlySet<FrameClass> = new Set([
  FrameClass.Root,
  FrameClass.Label,
  FrameClass.Incomplete,
  FrameClass.Smaller,
]);

/** Whether a frame is of code, and not of what stands between such frames. */
export function isCode({ frameClass }: Pick<Frame, 'frameClass'>): boolean {
  return !NO_CODE.has(frameClass);
}

/**
 * What a browser takes for a graph of a million nodes is, more than anything, fresh memory: every page of it
 * is a fault, and 8 bytes a node cost as much as reading the file does. So only what nothing can do without is
 * there from the beginning; the other columns are made when they are first asked for, and kept.
 */
export class FlameGraph {
  readonly nodeCount: number;
  /** First node after everything below, by node. */
  readonly end: Uint32Array;
  /** Self and everything below, by node. */
  readonly total: Float64Array;
  /** Row `d` is from `rowStart[d]` to `rowStart[d + 1]` in {@link rows}. */
  readonly rowStart: Uint32Array;
  private knownSelf: Float64Array | undefined;
  private knownParent: Uint32Array | undefined;
  private knownRows: { readonly nodes: Uint32Array; readonly left: Float64Array } | undefined;

  /**
   * Completes a graph from its depth-first columns; linear. `depth[0]` must be 0 and every other depth between
   * 1 and one more than the depth before it. `values` are those of the nodes themselves; it becomes `total`.
   */
  constructor(
    readonly frames: readonly Frame[],
    /** Index in `frames`, by node. */
    readonly frame: Uint32Array,
    /** Steps from the root, by node. */
    readonly depth: Uint16Array,
    values: Float64Array,
    /** The greatest depth. */
    readonly maxDepth: number,
  ) {
    const nodeCount = frame.length;
    const rowStart = new Uint32Array(maxDepth + 2);
    const end = new Uint32Array(nodeCount);
    // Backwards, what is below a node has been met before it: `below` gathers the values and the number of
    // nodes of depth d at 2d and 2d + 1, until their caller comes. No loop inside, whose turns no processor
    // could foresee.
    const below = new Float64Array(2 * maxDepth + 4);
    for (let node = nodeCount - 1; node >= 0; node--) {
      const d = depth[node]!;
      const own = 2 * d;
      const whole = values[node]! + below[own + 2]!;
      const nodes = 1 + below[own + 3]!;
      below[own + 2] = 0;
      below[own + 3] = 0;
      below[own]! += whole;
      below[own + 1]! += nodes;
      rowStart[d + 1]!++;
      values[node] = whole;
      end[node] = node + nodes;
    }
    for (let d = 1; d < rowStart.length; d++) rowStart[d]! += rowStart[d - 1]!;
    this.nodeCount = nodeCount;
    this.end = end;
    this.total = values;
    this.rowStart = rowStart;
  }

  /** The part of the value that no child has, by node. */
  get self(): Float64Array {
    if (this.knownSelf !== undefined) return this.knownSelf;
    const { depth, total, nodeCount } = this;
    const self = total.slice();
    const openAt = new Uint32Array(this.maxDepth + 1);
    for (let node = 1; node < nodeCount; node++) {
      const d = depth[node]!;
      openAt[d] = node;
      self[openAt[d - 1]!]! -= total[node]!;
    }
    this.knownSelf = self;
    return self;
  }

  /** Says what {@link self} is, for those who have it already or whose values are no whole numbers. */
  rememberSelf(self: Float64Array): this {
    this.knownSelf = self;
    return this;
  }

  /** Parent, by node; the root is its own. */
  get parent(): Uint32Array {
    if (this.knownParent !== undefined) return this.knownParent;
    const { depth, nodeCount } = this;
    const parent = new Uint32Array(nodeCount);
    const openAt = new Uint32Array(this.maxDepth + 1);
    for (let node = 1; node < nodeCount; node++) {
      const d = depth[node]!;
      openAt[d] = node;
      parent[node] = openAt[d - 1]!;
    }
    this.knownParent = parent;
    return parent;
  }

  /** Nodes by depth and then from left to right. Rows are depth first as well, so each is sorted. */
  get rows(): Uint32Array {
    return this.layOut().nodes;
  }

  /**
   * Left edges in the order of {@link rows}, in units of the value: children stand at the left of their
   * parent. A row's nodes are far from each other in all other columns.
   */
  get rowLeft(): Float64Array {
    return this.layOut().left;
  }

  /** Puts every node into its row. */
  layOut(): { readonly nodes: Uint32Array; readonly left: Float64Array } {
    if (this.knownRows !== undefined) return this.knownRows;
    const { depth, total, nodeCount } = this;
    const nodes = new Uint32Array(nodeCount);
    const left = new Float64Array(nodeCount);
    const next = this.rowStart.slice();
    // `edge[d]` is where the next node of depth d begins.
    const edge = new Float64Array(this.maxDepth + 2);
    for (let node = 0; node < nodeCount; node++) {
      const d = depth[node]!;
      const begin = edge[d]!;
      const place = next[d]!++;
      nodes[place] = node;
      left[place] = begin;
      edge[d] = begin + total[node]!;
      edge[d + 1] = begin;
    }
    this.knownRows = { nodes, left };
    return this.knownRows;
  }
}

/** Refused: more levels than any runtime lets a thread recurse. */
export const MAX_DEPTH = 0xffff;

/** A graph of columns that stay the caller's; see {@link FlameGraph}. */
export function buildGraph(
  frames: readonly Frame[],
  frame: Uint32Array,
  depth: Uint16Array,
  self: Float64Array,
): FlameGraph {
  let maxDepth = 0;
  for (const d of depth) if (d > maxDepth) maxDepth = d;
  return new FlameGraph(frames, frame, depth, self.slice(), maxDepth).rememberSelf(self);
}

/** Where `node` stands in `rows`. */
export function placeInRow(graph: FlameGraph, node: number): number {
  const { rows, rowStart } = graph;
  const depth = graph.depth[node]!;
  let low = rowStart[depth]!;
  let high = rowStart[depth + 1]!;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (rows[middle]! >= node) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Left edge of a node, in units of the value. */
export function leftOf(graph: FlameGraph, node: number): number {
  return graph.rowLeft[placeInRow(graph, node)]!;
}

/** The nodes from the root down to `node`, both included. */
export function pathTo(graph: FlameGraph, node: number): number[] {
  const path: number[] = [];
  for (let at = node; ; at = graph.parent[at]!) {
    path.push(at);
    if (at === 0) break;
  }
  return path.reverse();
}

export function childrenOf(graph: FlameGraph, node: number): number[] {
  const children: number[] = [];
  for (let child = node + 1; child < graph.end[node]!; child = graph.end[child]!) children.push(child);
  return children;
}

/** Whether `node` is `ancestor` or below it. */
export function isWithin(graph: FlameGraph, node: number, ancestor: number): boolean {
  return node >= ancestor && node < graph.end[ancestor]!;
}

/**
 * The place of the first node in row `depth` whose right edge lies beyond `value`; the end of the row
 * if there is none. The result indexes `rows`.
 */
export function firstEndingAfter(graph: FlameGraph, depth: number, value: number): number {
  const { rows, rowLeft, total } = graph;
  let low = graph.rowStart[depth]!;
  let high = graph.rowStart[depth + 1]!;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (rowLeft[middle]! + total[rows[middle]!]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * The place of the first node in `rows[from..to]`, all of one row, that begins at `value` or later.
 * Looks nearby first, since the caller goes from pixel to pixel.
 */
export function firstStartingAt(rowLeft: Float64Array, from: number, to: number, value: number): number {
  let low = from;
  let stride = 1;
  while (low + stride < to && rowLeft[low + stride - 1]! < value) {
    low += stride;
    stride *= 2;
  }
  let high = Math.min(to, low + stride);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (rowLeft[middle]! >= value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The node at `depth` that covers `value`, or -1. */
export function nodeAt(graph: FlameGraph, depth: number, value: number): number {
  if (depth < 0 || depth > graph.maxDepth) return -1;
  const place = firstEndingAfter(graph, depth, value);
  if (place >= graph.rowStart[depth + 1]!) return -1;
  return graph.rowLeft[place]! <= value ? graph.rows[place]! : -1;
}
