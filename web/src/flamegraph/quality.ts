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
  /** By place `node`: the incomplete value of all nodes before it, so that any subtree is a difference. */
  readonly before: Float64Array;
}

const known = new WeakMap<FlameGraph, StackQuality>();

/** Remembered for each graph. Linear in the number of nodes. */
export function stackQuality(graph: FlameGraph): StackQuality {
  const remembered = known.get(graph);
  if (remembered !== undefined) return remembered;
  const isMarker = Uint8Array.from(graph.frames, (frame) => (frame.frameClass === FrameClass.Incomplete ? 1 : 0));
  const reasons = new Map<number, number>();
  const before = new Float64Array(graph.nodeCount + 1);
  let markedUpTo = 0;
  for (let node = 0; node < graph.nodeCount; node++) {
    if (node >= markedUpTo && isMarker[graph.frame[node]!] === 1) {
      const frame = graph.frame[node]!;
      reasons.set(frame, (reasons.get(frame) ?? 0) + graph.total[node]!);
      markedUpTo = graph.end[node]!;
    }
    before[node + 1] = before[node]! + (node < markedUpTo ? graph.self[node]! : 0);
  }
  const processes: ProcessQuality[] = [];
  for (let node = 1; node < graph.nodeCount; node = graph.end[node]!) {
    const frame = graph.frames[graph.frame[node]!]!;
    if (frame.frameClass !== FrameClass.Label) continue;
    const incomplete = before[graph.end[node]!]! - before[node]!;
    processes.push({ name: frame.name, value: graph.total[node]!, incomplete });
  }
  const quality: StackQuality = {
    incomplete: before[graph.nodeCount]!,
    reasons: [...reasons]
      .map(([frame, value]) => ({ name: graph.frames[frame]!.name, sentence: graph.frames[frame]!.module, value }))
      .sort((one, other) => other.value - one.value),
    processes: processes.sort((one, other) => other.incomplete - one.incomplete || other.value - one.value),
    before,
  };
  known.set(graph, quality);
  return quality;
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
  const { before } = stackQuality(graph);
  const incomplete = before[graph.end[node]!]! - before[node]!;
  return incomplete > 0 ? { state: 'partly', incomplete } : { state: 'complete' };
}
