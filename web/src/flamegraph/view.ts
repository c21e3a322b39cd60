// Where things are on the screen: rows, the zoomed stretch, the node under a point, the node that an arrow
// key leads to. All in device pixels.

import { childrenOf, isWithin, leftOf, nodeAt, placeInRow, type FlameGraph } from './graph';
import type { Window } from './boxes';

/** Icicle: the root is at the top. Flame: at the bottom. */
export type Direction = 'icicle' | 'flame';

export interface Layout {
  readonly direction: Direction;
  readonly widthPx: number;
  readonly rowPx: number;
  /** Height of all rows, at least that of the canvas. */
  readonly contentPx: number;
  /** What is shown in the width. */
  readonly window: Window;
}

/** Depth of the deepest node below `node`. */
export function deepestBelow(graph: FlameGraph, node: number): number {
  if (node === 0) return graph.maxDepth;
  let deepest = graph.depth[node]!;
  for (let at = node; at < graph.end[node]!; at++) {
    if (graph.depth[at]! > deepest) deepest = graph.depth[at]!;
  }
  return deepest;
}

export function layoutOf(
  graph: FlameGraph,
  zoom: number,
  direction: Direction,
  widthPx: number,
  heightPx: number,
  rowPx: number,
): Layout {
  const rows = deepestBelow(graph, zoom) + 1;
  const from = leftOf(graph, zoom);
  return {
    direction,
    widthPx,
    rowPx,
    contentPx: Math.max(heightPx, rows * rowPx),
    window: { from, to: from + graph.total[zoom]!, widthPx },
  };
}

/** Top edge of a row, without scrolling. */
export function rowTop(layout: Layout, depth: number): number {
  return layout.direction === 'icicle' ? depth * layout.rowPx : layout.contentPx - (depth + 1) * layout.rowPx;
}

/** The depth of the row at `y`, without scrolling; may lie outside of the graph. */
export function depthAt(layout: Layout, y: number): number {
  const fromRoot = layout.direction === 'icicle' ? y : layout.contentPx - 1 - y;
  return Math.floor(fromRoot / layout.rowPx);
}

/** The node under a point (`y` without scrolling), or -1. */
export function nodeAtPoint(graph: FlameGraph, layout: Layout, x: number, y: number): number {
  const { from, to } = layout.window;
  if (!(to > from) || x < 0 || x >= layout.widthPx) return -1;
  return nodeAt(graph, depthAt(layout, y), from + ((x + 0.5) / layout.widthPx) * (to - from));
}

/** Where to scroll so that the row of `depth` is seen; `scroll` if it is. */
export function scrollToRow(layout: Layout, depth: number, scroll: number, heightPx: number): number {
  const top = rowTop(layout, depth);
  if (top < scroll) return Math.max(0, top - layout.rowPx);
  if (top + layout.rowPx > scroll + heightPx) {
    return Math.min(layout.contentPx - heightPx, top + 2 * layout.rowPx - heightPx);
  }
  return scroll;
}

export type Step = 'caller' | 'callee' | 'left' | 'right';

/**
 * The node one step away: the caller, the widest callee, or the neighbour in the same row inside `zoom`.
 * The node itself where there is none.
 */
export function neighbour(graph: FlameGraph, node: number, zoom: number, step: Step): number {
  switch (step) {
    case 'caller':
      return graph.parent[node]!;
    case 'callee': {
      // On the way from an ancestor of the zoomed node to it there is but one callee to be seen.
      if (node !== zoom && isWithin(graph, zoom, node)) {
        return childrenOf(graph, node).find((child) => isWithin(graph, zoom, child)) ?? node;
      }
      let widest = node;
      for (const child of childrenOf(graph, node)) {
        if (widest === node || graph.total[child]! > graph.total[widest]!) widest = child;
      }
      return widest;
    }
    case 'left':
    case 'right': {
      if (!isWithin(graph, node, zoom)) return node;
      const place = placeInRow(graph, node) + (step === 'left' ? -1 : 1);
      const depth = graph.depth[node]!;
      if (place < graph.rowStart[depth]! || place >= graph.rowStart[depth + 1]!) return node;
      const other = graph.rows[place]!;
      return isWithin(graph, other, zoom) ? other : node;
    }
  }
}
