// One function between everything that calls it, above, and everything it calls, below.

import type { JSX } from 'preact';
import { useEffect, useMemo, useState } from 'preact/hooks';

import type { Theme } from '../flamegraph/colours';
import { sourceOf, type Measure } from '../flamegraph/details';
import { FlameGraphView } from '../flamegraph/FlameGraphView';
import { functionTotals, functionsOf, sandwich } from '../flamegraph/functions';
import type { FlameGraph, Frame } from '../flamegraph/graph';
import type { Command } from '../flamegraph/keyboard';
import { shortName } from '../flamegraph/names';
import { search, type Query } from '../flamegraph/search';
import { formatShare, formatValue } from '../flamegraph/values';
import { neighbour, type Direction } from '../flamegraph/view';
import { topRows } from './TopTable';

/** So many functions are offered, those first in which the most was spent. */
const OFFERED = 40;

interface SandwichProps {
  readonly graph: FlameGraph;
  /** -1 for none. */
  readonly functionId: number;
  readonly measure: Measure;
  readonly theme: Theme;
  readonly query: Query | undefined;
  readonly onFunction: (frame: Frame) => void;
  readonly onCommand: (command: Command) => void;
}

export function SandwichView(props: SandwichProps): JSX.Element {
  const { graph, functionId, measure } = props;
  const { frameOf } = functionsOf(graph.frames);
  const rows = useMemo(() => topRows(graph, props.query, 'self').slice(0, OFFERED), [graph, props.query]);
  const both = useMemo(() => (functionId < 0 ? undefined : sandwich(graph, functionId)), [graph, functionId]);
  const totals = useMemo(() => functionTotals(graph), [graph]);
  const frame = functionId < 0 ? undefined : graph.frames[frameOf[functionId]!];
  const all = graph.total[0]!;
  return (
    <div class="sandwich">
      <nav class="functions" aria-label="Functions">
        <ul class="frames">
          {rows.map((row) => {
            const offered = graph.frames[frameOf[row.id]!]!;
            return (
              <li key={row.id}>
                <button
                  type="button"
                  class="link"
                  title={offered.name}
                  aria-current={row.id === functionId}
                  onClick={() => props.onFunction(offered)}
                >
                  <span class="name">{shortName(offered.name)}</span>
                  <span class="figure">{formatShare(row.self, all)}</span>
                </button>
              </li>
            );
          })}
        </ul>
      </nav>
      {frame === undefined || both === undefined ? (
        <p class="choose">Choose a function to see its callers and callees.</p>
      ) : (
        <div class="halves">
          <header>
            <h2>{frame.name}</h2>
            <p>
              total {formatValue(totals.total[functionId]!, measure.unit, measure.kind)} (
              {formatShare(totals.total[functionId]!, all)} of all) · self{' '}
              {formatValue(totals.self[functionId]!, measure.unit, measure.kind)} (
              {formatShare(totals.self[functionId]!, all)})
              {sourceOf(frame) === '' ? '' : ` · ${sourceOf(frame)}`}
            </p>
          </header>
          <h3>callers</h3>
          <Half {...props} label="Callers" half={both.callers} direction="flame" />
          <h3>callees</h3>
          <Half {...props} label="Callees" half={both.callees} direction="icicle" />
        </div>
      )}
    </div>
  );
}

/** One of the two graphs, with a zoom of its own. */
function Half(
  props: SandwichProps & { readonly label: string; readonly half: FlameGraph; readonly direction: Direction },
): JSX.Element {
  const { half, query } = props;
  const [zoomed, setZoom] = useState(0);
  const [chosen, setSelected] = useState(0);
  useEffect(() => {
    setZoom(0);
    setSelected(0);
  }, [half]);
  // Until the effect has run, these may be nodes of the function before.
  const zoom = zoomed < half.nodeCount ? zoomed : 0;
  const selected = chosen < half.nodeCount ? chosen : 0;
  const hits = useMemo(() => (query?.ok === true ? search(half, query.matches) : undefined), [half, query]);
  const zoomTo = (node: number): void => {
    setZoom(node);
    setSelected(node);
  };
  const obey = (command: Command): void => {
    switch (command.do) {
      case 'move':
        return setSelected(neighbour(half, selected, zoom, command.step));
      case 'zoom':
        return zoomTo(selected);
      case 'out':
        return setZoom(half.parent[zoom]!);
      case 'reset':
        return setZoom(0);
      case 'first':
        return setSelected(0);
      case 'sandwich':
        return props.onFunction(half.frames[half.frame[selected]!]!);
      default:
        return props.onCommand(command);
    }
  };
  return (
    <FlameGraphView
      label={props.label}
      graph={half}
      measure={props.measure}
      direction={props.direction}
      theme={props.theme}
      zoom={zoom}
      selected={selected}
      hits={hits}
      onSelect={setSelected}
      onZoom={zoomTo}
      onCommand={obey}
    />
  );
}
