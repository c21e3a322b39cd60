// The share of complete stacks, and below it why the others are not, and whose they are.

import type { JSX } from 'preact';

import type { FlameGraph } from '../flamegraph/graph';
import { stackQuality } from '../flamegraph/quality';
import { formatShare } from '../flamegraph/values';
import { Popover } from './Popover';

const MOST_SHOWN = 12;

export function StackQuality(props: {
  readonly graph: FlameGraph;
  readonly open: boolean;
  readonly onOpen: (open: boolean) => void;
  readonly onSearch: (text: string) => void;
}): JSX.Element | null {
  const { graph } = props;
  const all = graph.total[0]!;
  if (all === 0) return null;
  const { incomplete, reasons, processes } = stackQuality(graph);
  const share = formatShare(all - incomplete, all);
  const poor = incomplete / all > 0.05;
  return (
    <Popover
      name="quality"
      title={`Share of stacks that were walked to their outermost frame: ${share}`}
      open={props.open}
      onOpen={props.onOpen}
      face={
        <span class={poor ? 'warning' : ''}>
          {share} complete stacks
        </span>
      }
    >
      {reasons.length === 0 ? (
        <p>Every stack was walked to its outermost frame.</p>
      ) : (
        <>
          <h3>Why the others are not</h3>
          <ul class="reasons">
            {reasons.map(({ name, sentence, value }, place) => (
              <li key={name}>
                <button
                  type="button"
                  class="link"
                  data-first={place === 0 ? '' : undefined}
                  title="Find these in the graph"
                  onClick={() => props.onSearch(name)}
                >
                  {name}
                </button>
                <span class="figure">{formatShare(value, all)}</span>
                <p>{sentence}</p>
              </li>
            ))}
          </ul>
        </>
      )}
      {processes.length > 0 && (
        <>
          <h3>Complete, by process</h3>
          <table class="figures">
            <thead>
              <tr>
                <th>process</th>
                <th>of all</th>
                <th>complete</th>
              </tr>
            </thead>
            <tbody>
              {processes.slice(0, MOST_SHOWN).map((process) => (
                <tr key={process.name}>
                  <th title={process.name}>{process.name}</th>
                  <td>{formatShare(process.value, all)}</td>
                  <td>{formatShare(process.value - process.incomplete, process.value)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {processes.length > MOST_SHOWN && <p class="hint">and {processes.length - MOST_SHOWN} more</p>}
        </>
      )}
    </Popover>
  );
}
