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
} as const;
export type FrameClass = (typeof FrameClass)[keyof typeof FrameClass];

/** A row of the frame table. */
export interface Frame {
  readonly name: string;
  readonly frameClass: FrameClass;
  /** Whether `name` is an address because no name was found. */
  readonly unnamed: boolean;
  /** Source file, empty if unknown. */
  readonly file: string;
  /** First line of the function, 0 if unknown. */
  readonly line: number;
  /** Path of the object; the key of a label; the explanation of an incomplete stack. */
  readonly module: string;
  readonly buildId: string;
}

export interface FlameGraph {
  readonly frames: readonly Frame[];
  readonly nodeCount: number;
  /** Index in `frames`, by node. */
  readonly frame: Uint32Array;
  /** Steps from the root, by node. */
  readonly depth: Uint16Array;
  /** Parent, by node; the root is its own. */
  readonly parent: Uint32Array;
  /** First node after everything below, by node. */
  readonly end: Uint32Array;
  /** The part of the value that no child has, by node. */
  readonly self: Float64Array;
  /** Self and everything below, by node. */
  readonly total: Float64Array;
  /** Left edge in units of the value, by node: children stand at the left of their parent. */
  readonly start: Float64Array;
  readonly maxDepth: number;
  /** Nodes by depth and then from left to right; row `d` is `rows[rowStart[d]]` to `rows[rowStart[d + 1]]`. */
  readonly rows: Uint32Array;
  readonly rowStart: Uint32Array;
  /**
   * Left and right edges in the order of `rows`. A row's nodes are far from each other in all other arrays,
   * and to draw a row is to read the edges of many of them. Filled in by {@link edgesOfRow}, since most rows
   * of a large graph are never seen.
   */
  readonly rowLeft: Float64Array;
  readonly rowRight: Float64Array;
  /** 1 for each depth whose edges are filled in. */
  readonly rowIsReady: Uint8Array;
}

/** Fills in the edges of a row, if nobody has yet. */
export function edgesOfRow(graph: FlameGraph, depth: number): void {
  if (graph.rowIsReady[depth] === 1) return;
  const { rows, start, total, rowLeft, rowRight } = graph;
  const last = graph.rowStart[depth + 1]!;
  for (let place = graph.rowStart[depth]!; place < last; place++) {
    const node = rows[place]!;
    const left = start[node]!;
    rowLeft[place] = left;
    rowRight[place] = left + total[node]!;
  }
  graph.rowIsReady[depth] = 1;
}

/** Refused: more levels than any runtime lets a thread recurse. */
export const MAX_DEPTH = 0xffff;

/**
 * Completes a graph from its depth-first columns. `depth[0]` must be 0 and every other depth between 1
 * and one more than the depth before it. Linear in the number of nodes.
 */
export function buildGraph(
  frames: readonly Frame[],
  frame: Uint32Array,
  depth: Uint16Array,
  self: Float64Array,
): FlameGraph {
  const nodeCount = frame.length;
  // Rows first, since each node goes into its row as it is met.
  let maxDepth = 0;
  for (let node = 0; node < nodeCount; node++) {
    const d = depth[node]!;
    if (d > maxDepth) maxDepth = d;
  }
  const rowStart = new Uint32Array(maxDepth + 2);
  for (let node = 0; node < nodeCount; node++) rowStart[depth[node]! + 1]!++;
  for (let d = 1; d < rowStart.length; d++) rowStart[d]! += rowStart[d - 1]!;

  const parent = new Uint32Array(nodeCount);
  const end = new Uint32Array(nodeCount);
  const total = new Float64Array(nodeCount);
  const start = new Float64Array(nodeCount);
  const rows = new Uint32Array(nodeCount);
  // Two walks without a loop inside, whose turns no processor could foresee. Backwards, what is below a node
  // has been met before it: `sum[d]` and `size[d]` gather the nodes of depth d until their caller comes.
  const sum = new Float64Array(maxDepth + 2);
  const size = new Uint32Array(maxDepth + 2);
  for (let node = nodeCount - 1; node >= 0; node--) {
    const d = depth[node]!;
    const whole = self[node]! + sum[d + 1]!;
    const nodes = 1 + size[d + 1]!;
    sum[d + 1] = 0;
    size[d + 1] = 0;
    sum[d]! += whole;
    size[d]! += nodes;
    total[node] = whole;
    end[node] = node + nodes;
  }
  // Forwards, a node follows its caller: `openAt[d]` is the one at depth d, and `edge[d]` where its next
  // callee begins.
  const openAt = new Uint32Array(maxDepth + 1);
  const edge = new Float64Array(maxDepth + 1);
  const next = rowStart.slice();
  for (let node = 0; node < nodeCount; node++) {
    const d = depth[node]!;
    const above = d === 0 ? 0 : d - 1;
    const left = edge[above]!;
    parent[node] = openAt[above]!;
    start[node] = left;
    rows[next[d]!++] = node;
    edge[above] = left + total[node]!;
    edge[d] = left;
    openAt[d] = node;
  }

  return {
    frames,
    nodeCount,
    frame,
    depth,
    parent,
    end,
    self,
    total,
    start,
    maxDepth,
    rows,
    rowStart,
    rowLeft: new Float64Array(nodeCount),
    rowRight: new Float64Array(nodeCount),
    rowIsReady: new Uint8Array(maxDepth + 1),
  };
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
  edgesOfRow(graph, depth);
  let low = graph.rowStart[depth]!;
  let high = graph.rowStart[depth + 1]!;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (graph.rowRight[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * The place of the first node in `rows[from..to]`, all of one row whose edges are filled in, that begins at
 * `value` or later.
 * Looks nearby first, since the caller goes from pixel to pixel.
 */
export function firstStartingAt(graph: FlameGraph, from: number, to: number, value: number): number {
  let low = from;
  let stride = 1;
  while (low + stride < to && graph.rowLeft[low + stride - 1]! < value) {
    low += stride;
    stride *= 2;
  }
  let high = Math.min(to, low + stride);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (graph.rowLeft[middle]! >= value) high = middle;
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
