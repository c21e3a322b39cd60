// Slow against typical: the requests of one route in two groups, and a graph that has every trace above its
// stacks taken apart into one graph for each group.

import { FrameClass, type FlameGraph } from '../flamegraph/graph';
import { TreeBuilder } from '../flamegraph/merge';
import type { Requests } from './scatter';

/** The slowest twentieth. */
const SLOW_PART = 0.05;
/** Typical is the middle fifth. */
const TYPICAL = [0.4, 0.6] as const;
/** Below this many there is no telling slow from typical. */
export const FEWEST = 10;

export interface Group {
  readonly traceIds: ReadonlySet<string>;
  readonly count: number;
  readonly minNs: number;
  readonly maxNs: number;
}

export interface Contrast {
  readonly slow: Group;
  readonly typical: Group;
}

/** Both groups; `undefined` if too few have ended. A trace that is in the slow group is in no other. */
export function contrastOf(requests: Requests): Contrast | undefined {
  const ended: number[] = [];
  for (let index = 0; index < requests.count; index++) {
    if (!Number.isNaN(requests.durationNs[index]!)) ended.push(index);
  }
  if (ended.length < FEWEST) return undefined;
  const length = (index: number): number => requests.durationNs[index]!;
  ended.sort((one, other) => length(one) - length(other));
  const group = (from: number, to: number, without: ReadonlySet<string>): Group => {
    const members = ended.slice(from, to).filter((index) => !without.has(requests.traceId[index]!));
    return {
      traceIds: new Set(members.map((index) => requests.traceId[index]!)),
      count: members.length,
      minNs: Math.min(...members.map(length)),
      maxNs: Math.max(...members.map(length)),
    };
  };
  const slow = group(ended.length - Math.max(1, Math.round(ended.length * SLOW_PART)), ended.length, new Set());
  const [from, to] = TYPICAL;
  const typical = group(Math.floor(from * ended.length), Math.ceil(to * ended.length), slow.traceIds);
  return typical.count === 0 ? undefined : { slow, typical };
}

/** What lies below the labels of a group's traces, without the labels: the mean of one request of the group. */
export function graphOfGroup(graph: FlameGraph, { traceIds, count }: Group): FlameGraph {
  const builder = new TreeBuilder(graph.frames);
  const { depth, end, frame, self } = graph;
  const at = new Uint32Array(graph.maxDepth + 1);
  for (let top = 1; top < graph.nodeCount; top = end[top]!) {
    const label = graph.frames[frame[top]!]!;
    if (label.frameClass !== FrameClass.Label || label.module !== 'trace_id' || !traceIds.has(label.name)) continue;
    at[1] = 0;
    builder.addSelf(0, self[top]! / count);
    for (let node = top + 1; node < end[top]!; node++) {
      const d = depth[node]!;
      at[d] = builder.child(at[d - 1]!, frame[node]!);
      builder.addSelf(at[d], self[node]! / count);
    }
  }
  return builder.build().graph;
}
