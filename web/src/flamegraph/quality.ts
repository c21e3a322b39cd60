// How much of a graph has whole stacks. A stack whose outer part is missing hangs below a marker that names
// the reason; see `flame_tree.rs`.

import { FrameClass, pathTo, type FlameGraph } from './graph';

export interface Reason {
  /** As the marker reads, `[incomplete: no_table]`. */
  readonly name: string;
  /** A sentence for a person. */
  readonly sentence: string;
  readonly value: number;
}

export interface ProcessQuality {
  readonly name: string;
  readonly value: number;
  readonly incomplete: number;
}

export interface StackQuality {
  readonly incomplete: number;
  /** Largest first. */
  readonly reasons: readonly Reason[];
  /** The labels below the root, if it has any: those that lack most first. */
  readonly processes: readonly ProcessQuality[];
  /** The outermost markers, depth first, and the value below all of them before each; one longer. */
  readonly markers: readonly number[];
  readonly upTo: readonly number[];
}

const known = new WeakMap<FlameGraph, StackQuality>();

/** Remembered for each graph. Linear in the number of nodes. */
export function stackQuality(graph: FlameGraph): StackQuality {
  const remembered = known.get(graph);
  if (remembered !== undefined) return remembered;
  const isMarker = Uint8Array.from(graph.frames, (frame) => (frame.frameClass === FrameClass.Incomplete ? 1 : 0));
  const reasons = new Map<number, number>();
  // The outermost markers, and what hangs below all of them up to each.
  const markers: number[] = [];
  const upTo: number[] = [0];
  for (let node = 0; node < graph.nodeCount; ) {
    const frame = graph.frame[node]!;
    if (isMarker[frame] === 1) {
      const value = graph.total[node]!;
      reasons.set(frame, (reasons.get(frame) ?? 0) + value);
      markers.push(node);
      upTo.push(upTo.at(-1)! + value);
      node = graph.end[node]!;
    } else {
      node++;
    }
  }
  const processes: ProcessQuality[] = [];
  for (let node = 1; node < graph.nodeCount; node = graph.end[node]!) {
    const frame = graph.frames[graph.frame[node]!]!;
    if (frame.frameClass !== FrameClass.Label) continue;
    const incomplete = incompleteBelow(graph, node, markers, upTo);
    processes.push({ name: frame.name, value: graph.total[node]!, incomplete });
  }
  const quality: StackQuality = {
    incomplete: upTo.at(-1)!,
    reasons: [...reasons]
      .map(([frame, value]) => ({ name: graph.frames[frame]!.name, sentence: graph.frames[frame]!.module, value }))
      .sort((one, other) => other.value - one.value),
    processes: processes.sort((one, other) => other.incomplete - one.incomplete || other.value - one.value),
    markers,
    upTo,
  };
  known.set(graph, quality);
  return quality;
}

/** What hangs below the markers in the subtree of a node that is in none of them itself. */
function incompleteBelow(graph: FlameGraph, node: number, markers: readonly number[], upTo: readonly number[]): number {
  const placeOf = (wanted: number): number => {
    let low = 0;
    let high = markers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (markers[middle]! >= wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  return upTo[placeOf(graph.end[node]!)]! - upTo[placeOf(node)]!;
}

/** What is to be said of the stacks that go through a node. */
export type Unwinding =
  | { readonly state: 'complete' }
  /** All of them lack their outer part, for this reason. */
  | { readonly state: 'incomplete'; readonly reason: string; readonly sentence: string }
  /** Some do. */
  | { readonly state: 'partly'; readonly incomplete: number };

export function unwindingOf(graph: FlameGraph, node: number): Unwinding {
  for (const above of pathTo(graph, node)) {
    const frame = graph.frames[graph.frame[above]!]!;
    if (frame.frameClass === FrameClass.Incomplete) {
      return { state: 'incomplete', reason: frame.name, sentence: frame.module };
    }
  }
  const { markers, upTo } = stackQuality(graph);
  const incomplete = incompleteBelow(graph, node, markers, upTo);
  return incomplete > 0 ? { state: 'partly', incomplete } : { state: 'complete' };
}
