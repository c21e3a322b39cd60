// A graph that has been loaded, in three views: as a flame graph, as a table, and one function between its
// callers and callees; the search in it; and what is known of the selected frame.

import type { JSX } from 'preact';
import { useCallback, useMemo, useRef, useState } from 'preact/hooks';

import type { ColumnarFile } from '../flamegraph/columnar';
import type { Theme } from '../flamegraph/colours';
import { diff } from '../flamegraph/diff';
import { FlameGraphView } from '../flamegraph/FlameGraphView';
import { findFunction, functionKey } from '../flamegraph/functions';
import type { FlameGraph, Frame } from '../flamegraph/graph';
import type { Command } from '../flamegraph/keyboard';
import { nodeOfPath, nodePath } from '../flamegraph/nodepath';
import { nextHit, parseQuery, search, zoomToReveal } from '../flamegraph/search';
import { formatValue } from '../flamegraph/values';
import { Marks, summaryOf, type Verdicts } from '../flamegraph/verdicts';
import { neighbour } from '../flamegraph/view';
import { DetailPanel } from './DetailPanel';
import { SandwichView } from './SandwichView';
import { SearchBox } from './SearchBox';
import { StackQuality } from './StackQuality';
import { TopTable } from './TopTable';
import { formatRange } from './time';
import { formatRate } from './timeline';
import { VIEWS, type UrlState, type ViewName } from './urlstate';
import type { ChangeState } from './useUrlState';

const VIEW_NAMES: Readonly<Record<ViewName, string>> = { graph: 'Flame graph', table: 'Top table', sandwich: 'Sandwich' };
/** A hit is jumped to so that it is at least so wide, in CSS pixels. */
const HIT_WIDTH_CSS_PX = 60;

export interface ExplorerProps {
  readonly file: ColumnarFile;
  readonly base: ColumnarFile | undefined;
  /** What is certain of the comparison; a sentence while, or why, nothing is known of that. */
  readonly verdicts?: Verdicts | string | undefined;
  readonly state: UrlState;
  readonly change: ChangeState;
  readonly theme: Theme;
  readonly nowMs: number;
  /** Whether what is shown is not yet what is chosen. */
  readonly stale: boolean;
  /** Set to what obeys the commands that are about the graph. */
  readonly keys: { current: ((command: Command) => void) | undefined };
  readonly onCommand: (command: Command) => void;
  /** What to ask for the requests that ran a function. */
  readonly ranPath?: (name: string) => string;
}

export function Explorer(props: ExplorerProps): JSX.Element {
  const { file, base, state, change, theme } = props;
  const searchBox = useRef<HTMLInputElement>(null);
  const [qualityOpen, setQualityOpen] = useState(false);

  const compared = useMemo(
    () => (base === undefined ? undefined : diff(base.graph, file.graph, state.mode)),
    [base, file, state.mode],
  );
  const { verdicts } = props;
  const comparison = useMemo(() => {
    // What is decided is decided of shares.
    if (compared === undefined || typeof verdicts !== 'object' || !verdicts.decided || compared.mode !== 'share') return compared;
    return { ...compared, marks: new Marks(compared.graph.frames, verdicts) };
  }, [compared, verdicts]);
  const graph = comparison?.graph ?? file.graph;
  const measure = useMemo(() => ({ kind: file.kind, unit: file.unit }), [file]);

  const zoom = useMemo(() => nodeOfPath(graph, state.zoom), [graph, state.zoom]);
  const selected = useMemo(
    () => (state.selected === '' ? zoom : nodeOfPath(graph, state.selected)),
    [graph, state.selected, zoom],
  );
  const query = useMemo(() => parseQuery(state.search), [state.search]);
  const result = useMemo(
    () => (query?.ok === true ? search(graph, query.matches) : undefined),
    [graph, query],
  );

  // The sandwich is of the newer side alone: the values of a comparison are widths. A function is known by
  // its key, since the two have different numbers for it.
  const functionId = useMemo(() => {
    const chosen = state.function === '' ? frameKeyOf(graph, selected) : state.function;
    return findFunction(file.graph.frames, chosen);
  }, [file, graph, state.function, selected]);

  const select = useCallback((node: number) => change({ selected: nodePath(graph, node) }, 'replace'), [graph, change]);
  const zoomTo = useCallback(
    (node: number) => change({ zoom: nodePath(graph, node), selected: nodePath(graph, node) }, 'push'),
    [graph, change],
  );
  const openSandwich = useCallback(
    (frame: Frame) => change({ view: 'sandwich', function: functionKey(frame) }, 'push'),
    [change],
  );
  const jumpToHit = (step: 1 | -1): void => {
    if (result === undefined) return;
    const node = nextHit(graph, result, selected, step);
    if (node < 0) return;
    const width = document.querySelector('.flamegraph-scroller')?.clientWidth ?? 1000;
    const wanted = zoomToReveal(graph, node, zoom, width, HIT_WIDTH_CSS_PX);
    change({ view: 'graph', zoom: nodePath(graph, wanted), selected: nodePath(graph, node) }, 'replace');
  };

  const jumpToCertain = (step: 1 | -1): void => {
    const node = comparison?.marks?.nextCertain(comparison, selected, step) ?? -1;
    if (node < 0) return;
    const width = document.querySelector('.flamegraph-scroller')?.clientWidth ?? 1000;
    const wanted = zoomToReveal(graph, node, zoom, width, HIT_WIDTH_CSS_PX);
    change({ view: 'graph', zoom: nodePath(graph, wanted), selected: nodePath(graph, node) }, 'replace');
  };

  const obey = (command: Command): void => {
    switch (command.do) {
      case 'move':
        return select(neighbour(graph, selected, zoom, command.step));
      case 'first':
        return select(0);
      case 'zoom':
        return zoomTo(selected);
      case 'out':
        if (zoom !== 0) return change({ zoom: nodePath(graph, graph.parent[zoom]!), selected: nodePath(graph, zoom) }, 'push');
        return change({ search: '' }, 'replace');
      case 'reset':
        return change({ zoom: '', selected: state.selected || state.zoom }, 'push');
      case 'search':
        searchBox.current?.focus();
        searchBox.current?.select();
        return;
      case 'hit':
        return jumpToHit(command.step);
      case 'certain':
        return jumpToCertain(command.step);
      case 'flip':
        return change({ direction: state.direction === 'icicle' ? 'flame' : 'icicle' }, 'push');
      case 'sandwich':
        if (selected !== 0) openSandwich(graph.frames[graph.frame[selected]!]!);
        return;
      case 'view':
        return change({ view: VIEWS[command.index] ?? 'graph' }, 'push');
      default:
        return props.onCommand(command);
    }
  };
  props.keys.current = obey;

  return (
    <>
      <div class="bar tools-bar">
        <nav class="views" aria-label="View">
          {VIEWS.map((view) => (
            <button
              key={view}
              type="button"
              aria-pressed={state.view === view}
              onClick={() => change({ view }, 'push')}
            >
              {VIEW_NAMES[view]}
            </button>
          ))}
        </nav>
        {state.view === 'graph' && (
          <button type="button" title="Root at the top or at the bottom (f)" onClick={() => obey({ do: 'flip' })}>
            {state.direction === 'icicle' ? 'Icicle' : 'Flame'}
            <span aria-hidden="true">{state.direction === 'icicle' ? ' ↓' : ' ↑'}</span>
          </button>
        )}
        {comparison !== undefined && state.view !== 'sandwich' && (
          <nav class="views" aria-label="Compare by">
            {(['share', 'absolute'] as const).map((mode) => (
              <button
                key={mode}
                type="button"
                aria-pressed={state.mode === mode}
                title={mode === 'share' ? 'Each frame’s share of its own side' : 'The values themselves'}
                onClick={() => change({ mode }, 'push')}
              >
                {mode === 'share' ? 'By share' : 'Absolute'}
              </button>
            ))}
          </nav>
        )}
        <SearchBox
          box={searchBox}
          text={state.search}
          problem={query?.ok === false ? query.problem : undefined}
          graph={graph}
          result={result}
          selected={selected}
          onText={(text) => change({ search: text }, 'replace')}
          onJump={jumpToHit}
        />
      </div>
      <div class="summary">
        {base !== undefined && <Facts file={base} nowMs={props.nowMs} side="A" />}
        <Facts file={file} nowMs={props.nowMs} side={base === undefined ? '' : 'B'} />
        {base === undefined && (
          <StackQuality
            graph={file.graph}
            open={qualityOpen}
            onOpen={setQualityOpen}
            onSearch={(text) => {
              setQualityOpen(false);
              change({ view: 'graph', search: text }, 'push');
            }}
          />
        )}
        {base !== undefined && verdicts !== undefined && (
          <Certainty verdicts={verdicts} byShare={state.mode === 'share'} onNext={comparison?.marks === undefined ? undefined : () => jumpToCertain(1)} />
        )}
        {file.samples > 0 && file.samples < 30 && (
          <strong class="warning">only {file.samples} {file.samples === 1 ? 'sample' : 'samples'}: shares are rough</strong>
        )}
        {zoom !== 0 && state.view === 'graph' && (
          <button type="button" class="link" title="Show everything (0)" onClick={() => obey({ do: 'reset' })}>
            Zoomed in: show everything
          </button>
        )}
      </div>
      <div class={`body${props.stale ? ' stale' : ''}`}>
        <main class="stage">
          {state.view === 'table' ? (
            <TopTable
              graph={graph}
              comparison={comparison}
              measure={measure}
              theme={theme}
              order={state.order}
              query={query}
              onOrder={(order) => change({ order }, 'replace')}
              onFunction={openSandwich}
            />
          ) : state.view === 'sandwich' ? (
            <SandwichView
              graph={file.graph}
              functionId={functionId}
              measure={measure}
              theme={theme}
              query={query}
              onFunction={openSandwich}
              onCommand={obey}
            />
          ) : (
            <FlameGraphView
              label="Flame graph"
              graph={graph}
              comparison={comparison}
              measure={measure}
              direction={state.direction}
              theme={theme}
              zoom={zoom}
              selected={selected}
              hits={result}
              onSelect={select}
              onZoom={zoomTo}
              onCommand={obey}
            />
          )}
        </main>
        {state.view === 'graph' && (
          <DetailPanel
            graph={graph}
            comparison={comparison}
            measure={measure}
            theme={theme}
            zoom={zoom}
            node={selected}
            onSelect={zoomTo}
            onSandwich={() => obey({ do: 'sandwich' })}
            ranPath={props.ranPath === undefined ? undefined : (name) => (state.ran === 'on' ? props.ranPath!(name) : '')}
            change={change}
          />
        )}
      </div>
    </>
  );
}

function frameKeyOf(graph: FlameGraph, node: number): string {
  return node === 0 ? '' : functionKey(graph.frames[graph.frame[node]!]!);
}

/** What is certain of a comparison, in a line. */
function Certainty(props: {
  readonly verdicts: Verdicts | string;
  readonly byShare: boolean;
  readonly onNext: (() => void) | undefined;
}): JSX.Element {
  const { verdicts } = props;
  if (typeof verdicts === 'string') return <span class="certainty">{verdicts}</span>;
  if (!props.byShare && verdicts.decided) {
    return <span class="certainty">Marks are of shares: compare by share to see them</span>;
  }
  const text = summaryOf(verdicts);
  const title = `Each side in ${verdicts.stretches} stretches of time of equal cost; the spread between these is the noise`;
  if (props.onNext === undefined || text.startsWith('No ')) {
    return (
      <span class="certainty" title={verdicts.decided ? title : undefined}>
        {text}
      </span>
    );
  }
  return (
    <button type="button" class="link certainty" title={`${title}. Show the next one (m)`} onClick={props.onNext}>
      {text}
    </button>
  );
}

/** What was measured, and when. */
function Facts(props: { readonly file: ColumnarFile; readonly nowMs: number; readonly side: '' | 'A' | 'B' }): JSX.Element {
  const { file, side } = props;
  const all = file.graph.total[0]!;
  const seconds = file.durationNs / 1e9;
  const range = { fromMs: file.startUnixMs, toMs: file.startUnixMs + file.durationNs / 1e6 };
  const facts = [
    `${formatValue(all, file.unit, file.unit === 'count' ? file.kind : '')}${file.unit === 'count' || file.kind === '' ? '' : ` ${file.kind === 'cpu' ? 'CPU' : file.kind}`}`,
    seconds > 0 ? formatRate(all / seconds, file.kind, file.unit) : '',
    file.samples > 0 && file.unit !== 'count' ? formatValue(file.samples, 'count', 'samples') : '',
    file.startUnixMs > 0 ? formatRange(range, props.nowMs) : '',
  ].filter((fact) => fact !== '');
  return (
    <span class="facts-line">
      {side !== '' && <span class={`side ${side === 'A' ? 'before' : 'after'}`}>{side}</span>}
      {facts.map((fact, place) => (place === 0 ? <strong key={fact}>{fact}</strong> : <span key={fact}>{fact}</span>))}
    </span>
  );
}
