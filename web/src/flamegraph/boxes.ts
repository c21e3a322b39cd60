// Which boxes one row of the graph shows: the heart of the renderer, without a canvas, so that it can be
// tested.
//
// Boxes are in device pixels, with whole edges. A box of at least one pixel is drawn as itself. Narrower
// ones are not dropped: those that lie beside each other become one grey run, which is marked as a hit if
// a search hit is in it. A run is found by binary search, so that a row costs about as many steps as it
// has pixels, however many nodes it has.

import { firstEndingAfter, firstStartingAt, type FlameGraph } from './graph';

/** The stretch of the graph that is shown, in units of the value, and its width in device pixels. */
export interface Window {
  readonly from: number;
  readonly to: number;
  readonly widthPx: number;
}

/** What {@link boxesOfRow} found, in arrays that are used again for the next row. */
export class RowBoxes {
  count = 0;
  /** Left edge, device pixels. */
  left = new Int32Array(256);
  /** Right edge, exclusive. */
  right = new Int32Array(256);
  /** Node, or -1 for a run of boxes that are narrower than a pixel. */
  node = new Int32Array(256);
  /** Whether it is a hit of the search, or a run with one in it. */
  hit = new Uint8Array(256);

  add(left: number, right: number, node: number, hit: boolean): void {
    if (this.count === this.left.length) this.grow();
    this.left[this.count] = left;
    this.right[this.count] = right;
    this.node[this.count] = node;
    this.hit[this.count] = hit ? 1 : 0;
    this.count++;
  }

  private grow(): void {
    const size = this.left.length * 2;
    const larger = (old: Int32Array): Int32Array<ArrayBuffer> => {
      const bigger = new Int32Array(size);
      bigger.set(old);
      return bigger;
    };
    this.left = larger(this.left);
    this.right = larger(this.right);
    this.node = larger(this.node);
    const hit = new Uint8Array(size);
    hit.set(this.hit);
    this.hit = hit;
  }
}

/** Search hits in the order of {@link FlameGraph.rows}, so that a run can be asked whether it has one. */
export interface RowHits {
  /** 1 for each node that is a hit. */
  readonly isHit: Uint8Array;
  /** How many hits lie in `rows` before each place; one longer than `rows`. */
  readonly before: Uint32Array;
}

/** Finds the boxes of row `depth` inside the window. */
export function boxesOfRow(
  graph: FlameGraph,
  depth: number,
  window: Window,
  hits: RowHits | undefined,
  boxes: RowBoxes,
): void {
  boxes.count = 0;
  const scale = window.widthPx / (window.to - window.from);
  if (!Number.isFinite(scale) || depth > graph.maxDepth) return;
  const { rows, rowLeft, total } = graph;
  const rowEnd = graph.rowStart[depth + 1]!;
  let place = firstEndingAfter(graph, depth, window.from);
  // The run that is being gathered, if `runLeft` is not -1.
  let runLeft = -1;
  let runRight = -1;
  let runHit = false;
  // Edges are rounded, so a run and a box may want the same pixel. The box has it, unless a hit would
  // disappear.
  const endRun = (limit: number): void => {
    if (!runHit) runRight = Math.min(runRight, limit);
    if (runLeft >= 0 && runRight > runLeft) boxes.add(runLeft, runRight, -1, runHit);
    runLeft = -1;
    runHit = false;
  };
  const usedUpTo = (): number => (boxes.count === 0 ? 0 : boxes.right[boxes.count - 1]!);

  while (place < rowEnd) {
    const start = rowLeft[place]!;
    if (start >= window.to) break;
    const node = rows[place]!;
    const exactLeft = (start - window.from) * scale;
    const exactRight = (start + total[node]! - window.from) * scale;
    if (exactRight - exactLeft >= 1) {
      const exact = Math.max(0, Math.round(exactLeft));
      endRun(exact);
      const left = Math.max(exact, usedUpTo());
      const right = Math.min(window.widthPx, Math.round(exactRight));
      // Clipped away by the edge of the window, or nearly so.
      if (right > left) boxes.add(left, right, node, hits?.isHit[node] === 1);
      place++;
      continue;
    }

    // Everything that begins in the same pixel is below a pixel too, but for the last one.
    const pixel = Math.max(0, Math.floor(exactLeft));
    let next = firstStartingAt(rowLeft, place + 1, rowEnd, window.from + (pixel + 1) / scale);
    if (next - 1 > place && total[rows[next - 1]!]! * scale >= 1) next--;
    if (pixel >= window.widthPx) break;
    const hit = hits !== undefined && hits.before[next]! > hits.before[place]!;
    if (runLeft < 0 || pixel > runRight) {
      endRun(pixel);
      runLeft = Math.max(pixel, usedUpTo());
      if (runLeft > pixel && hit) {
        // Take the pixel back from the box, if that leaves it one.
        const before = boxes.count - 1;
        if (boxes.right[before]! - boxes.left[before]! > 1) boxes.right[before]!--;
        runLeft = boxes.right[before]!;
      }
    }
    runRight = Math.max(pixel + 1, runLeft);
    runHit ||= hit;
    place = next;
  }
  endRun(window.widthPx);
}
