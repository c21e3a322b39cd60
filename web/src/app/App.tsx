// The page: what is shown, from the URL; the bar with search and views; the graph, the table or the
// sandwich; and what is known of the selected frame.

import type { JSX } from 'preact';
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';

import type { ColumnarFile } from '../flamegraph/columnar';
import type { Theme } from '../flamegraph/colours';
import { diff } from '../flamegraph/diff';
import { FlameGraphView } from '../flamegraph/FlameGraphView';
import { findFunction, functionKey } from '../flamegraph/functions';
import { FrameClass, type FlameGraph, type Frame } from '../flamegraph/graph';
import type { Command } from '../flamegraph/keyboard';
import { nodeOfPath, nodePath } from '../flamegraph/nodepath';
import { nextHit, parseQuery, placeOfHit, search, zoomToReveal, type SearchResult } from '../flamegraph/search';
import { formatShare, formatValue } from '../flamegraph/values';
import { neighbour } from '../flamegraph/view';
import flame from './flame.svg';
import { DetailPanel } from './DetailPanel';
import { Help } from './Help';
import { LoadError, loadGraph } from './load';
import { SandwichView } from './SandwichView';
import { initialTheme, rememberTheme } from './theme';
import { TopTable } from './TopTable';
import { VIEWS, formatState, parseState, type UrlState, type ViewName } from './urlstate';

const VIEW_NAMES: Readonly<Record<ViewName, string>> = { graph: 'Flame graph', table: 'Top table', sandwich: 'Sandwich' };
/** How long the state rests before it is written into the URL. */
const URL_REST_MS = 200;
/** A hit is jumped to so that it is at least so wide, in CSS pixels. */
const HIT_WIDTH_CSS_PX = 60;

type Loaded =
  | { readonly status: 'loading' }
  | { readonly status: 'failed'; readonly problem: string }
  | { readonly status: 'ready'; readonly file: ColumnarFile; readonly base: ColumnarFile | undefined };

export function App(): JSX.Element {
  const [state, change] = useUrlState();
  const [theme, setTheme] = useState<Theme>(initialTheme);
  const loaded = useGraphs(state.source, state.base);

  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    rememberTheme(theme);
  }, [theme]);

  const flipTheme = (): void => setTheme(theme === 'dark' ? 'light' : 'dark');
  switch (loaded.status) {
    case 'loading':
      return <Message title="Loading the flame graph" text="" busy />;
    case 'failed':
      return <Message title="There is no flame graph to show" text={loaded.problem} />;
    case 'ready':
      return (
        <Explorer
          file={loaded.file}
          base={loaded.base}
          state={state}
          change={change}
          theme={theme}
          flipTheme={flipTheme}
        />
      );
  }
}

function Message(props: { readonly title: string; readonly text: string; readonly busy?: boolean }): JSX.Element {
  return (
    <main class="message" role={props.busy === true ? 'status' : 'alert'}>
      <img src={flame} width="48" height="48" alt="" class={props.busy === true ? 'busy' : ''} />
      <h1>{props.title}</h1>
      {props.text !== '' && <p>{props.text}</p>}
    </main>
  );
}

interface ExplorerProps {
  readonly file: ColumnarFile;
  readonly base: ColumnarFile | undefined;
  readonly state: UrlState;
  readonly change: (fields: Partial<UrlState>, how?: 'push' | 'replace') => void;
  readonly theme: Theme;
  readonly flipTheme: () => void;
}

function Explorer(props: ExplorerProps): JSX.Element {
  const { file, base, state, change, theme } = props;
  const [helpOpen, setHelpOpen] = useState(false);
  const searchBox = useRef<HTMLInputElement>(null);

  const comparison = useMemo(
    () => (base === undefined ? undefined : diff(base.graph, file.graph, state.mode)),
    [base, file, state.mode],
  );
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
    const node = nextHit(result, selected, step);
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
        if (helpOpen) return setHelpOpen(false);
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
      case 'flip':
        return change({ direction: state.direction === 'icicle' ? 'flame' : 'icicle' }, 'push');
      case 'sandwich':
        if (selected !== 0) openSandwich(graph.frames[graph.frame[selected]!]!);
        return;
      case 'help':
        return setHelpOpen(!helpOpen);
      case 'view':
        return change({ view: VIEWS[command.index] ?? 'graph' }, 'push');
    }
  };
  useGlobalKeys(obey);

  return (
    <div class="page">
      <header class="bar">
        <a class="brand" href="#" title="Show everything">
          <img src={flame} width="22" height="22" alt="" />
          <span>spanflame</span>
        </a>
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
        <div class="tools">
          {comparison !== undefined && (
            <button
              type="button"
              title="Compare shares of each side, or the values themselves"
              onClick={() => change({ mode: state.mode === 'share' ? 'absolute' : 'share' }, 'push')}
            >
              {state.mode === 'share' ? 'By share' : 'Absolute'}
            </button>
          )}
          {state.view === 'graph' && (
            <button type="button" title="Root at the top or at the bottom (f)" onClick={() => obey({ do: 'flip' })}>
              {state.direction === 'icicle' ? 'Icicle ↓' : 'Flame ↑'}
            </button>
          )}
          <button type="button" title="Light or dark" aria-label="Light or dark" onClick={props.flipTheme}>
            {theme === 'dark' ? '☀' : '☾'}
          </button>
          <button type="button" title="Keys (?)" aria-label="Keys" onClick={() => setHelpOpen(true)}>
            ?
          </button>
        </div>
      </header>
      <Summary
        file={file}
        base={base}
        graph={graph}
        zoom={state.view === 'graph' ? zoom : 0}
        onReset={() => obey({ do: 'reset' })}
      />
      <div class="body">
        <main class="stage">
          {graph.total[0] === 0 ? (
            <Message title="No samples" text="Nothing ran while this profile was taken." />
          ) : state.view === 'table' ? (
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
              autoFocus
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
          />
        )}
      </div>
      {helpOpen && <Help onClose={() => setHelpOpen(false)} />}
    </div>
  );
}

function frameKeyOf(graph: FlameGraph, node: number): string {
  return node === 0 ? '' : functionKey(graph.frames[graph.frame[node]!]!);
}

/** What was measured, and how much of it has complete stacks. */
function Summary(props: {
  readonly file: ColumnarFile;
  readonly base: ColumnarFile | undefined;
  readonly graph: FlameGraph;
  readonly zoom: number;
  readonly onReset: () => void;
}): JSX.Element {
  const { file, base, zoom } = props;
  const incomplete = useMemo(() => incompleteValue(file.graph), [file]);
  const all = file.graph.total[0]!;
  const facts = [
    `${file.kind === '' ? 'value' : file.kind} ${formatValue(all, file.unit, '')}`.trim(),
    file.samples > 0 ? formatValue(file.samples, 'count', 'samples') : '',
    file.durationNs > 0 ? `over ${formatValue(file.durationNs, 'nanoseconds')}` : '',
    file.startUnixMs > 0 ? `from ${new Date(file.startUnixMs).toLocaleString()}` : '',
    base === undefined ? '' : `compared with ${formatValue(base.graph.total[0]!, base.unit, base.kind)}`,
  ].filter((fact) => fact !== '');
  return (
    <div class="summary">
      <span>{facts.join(' · ')}</span>
      {all > 0 && (
        <span title="Samples whose stack was walked up to its outermost frame">
          {formatShare(all - incomplete, all)} complete stacks
        </span>
      )}
      {file.samples > 0 && file.samples < 30 && <strong class="warning">only {file.samples} samples: shares are rough</strong>}
      {zoom !== 0 && (
        <button type="button" class="link" onClick={props.onReset}>
          zoomed · show everything
        </button>
      )}
    </div>
  );
}

/** What hangs below markers of incomplete stacks. */
function incompleteValue(graph: FlameGraph): number {
  let value = 0;
  for (let node = 0; node < graph.nodeCount; ) {
    if (graph.frames[graph.frame[node]!]!.frameClass === FrameClass.Incomplete) {
      value += graph.total[node]!;
      node = graph.end[node]!;
    } else {
      node++;
    }
  }
  return value;
}

function SearchBox(props: {
  readonly box: { current: HTMLInputElement | null };
  readonly text: string;
  readonly problem: string | undefined;
  readonly graph: FlameGraph;
  readonly result: SearchResult | undefined;
  readonly selected: number;
  readonly onText: (text: string) => void;
  readonly onJump: (step: 1 | -1) => void;
}): JSX.Element {
  const { result, graph, selected } = props;
  const count = result?.hits.length ?? 0;
  const at = result?.isHit[selected] === 1 ? placeOfHit(result, selected) + 1 : 0;
  return (
    <div class={`search${props.problem === undefined ? '' : ' invalid'}`} role="search">
      <input
        ref={props.box}
        type="search"
        value={props.text}
        placeholder="Search a function, /regex/, module:…"
        aria-label="Search"
        aria-invalid={props.problem !== undefined}
        spellcheck={false}
        onInput={(event) => props.onText(event.currentTarget.value)}
        onKeyDown={(event) => {
          event.stopPropagation();
          if (event.key === 'Enter') props.onJump(event.shiftKey ? -1 : 1);
          if (event.key === 'Escape') {
            if (props.text !== '') props.onText('');
            else document.querySelector<HTMLElement>('.flamegraph-scroller')?.focus();
          }
        }}
      />
      <output title={props.problem}>
        {props.problem !== undefined
          ? 'not a regular expression'
          : result === undefined
            ? ''
            : count === 0
              ? 'no hit'
              : `${formatShare(result.value, graph.total[0]!)} · ${at > 0 ? `${at} of ` : ''}${count.toLocaleString('en')}`}
      </output>
      {count > 0 && (
        <>
          <button type="button" aria-label="Previous hit" title="Previous hit (p)" onClick={() => props.onJump(-1)}>
            ‹
          </button>
          <button type="button" aria-label="Next hit" title="Next hit (n)" onClick={() => props.onJump(1)}>
            ›
          </button>
        </>
      )}
    </div>
  );
}

/** Keys that work wherever the focus is, except where text is typed or the graph itself takes them. */
function useGlobalKeys(obey: (command: Command) => void): void {
  const latest = useRef(obey);
  latest.current = obey;
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target;
      if (target instanceof HTMLElement && target.closest('input, textarea, select, button, a, [role=tree], table')) {
        if (!'/?123'.includes(event.key) || target.closest('input, textarea, select') !== null) return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const command: Command | undefined =
        event.key === '/'
          ? { do: 'search' }
          : event.key === '?'
            ? { do: 'help' }
            : event.key === 'f'
              ? { do: 'flip' }
              : event.key === 'n'
                ? { do: 'hit', step: 1 }
                : event.key === 'p'
                  ? { do: 'hit', step: -1 }
                  : event.key === 'Escape'
                    ? { do: 'out' }
                    : ['1', '2', '3'].includes(event.key)
                      ? { do: 'view', index: Number(event.key) - 1 }
                      : undefined;
      if (command === undefined) return;
      event.preventDefault();
      latest.current(command);
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, []);
}

/** The state in the URL's fragment. `push` makes a step that the browser's back button undoes. */
function useUrlState(): [UrlState, (fields: Partial<UrlState>, how?: 'push' | 'replace') => void] {
  const [state, setState] = useState(() => parseState(window.location.hash));
  const latest = useRef(state);
  latest.current = state;
  // Browsers refuse more than some 100 changes of the URL in half a minute, and an arrow key that is held
  // makes thirty a second: what makes no step in the history is written when it has come to rest.
  const waiting = useRef<number | undefined>(undefined);
  useEffect(() => {
    const onChange = (): void => {
      window.clearTimeout(waiting.current);
      setState(parseState(window.location.hash));
    };
    window.addEventListener('popstate', onChange);
    window.addEventListener('hashchange', onChange);
    return () => {
      window.removeEventListener('popstate', onChange);
      window.removeEventListener('hashchange', onChange);
    };
  }, []);
  const change = useCallback((fields: Partial<UrlState>, how: 'push' | 'replace' = 'push') => {
    const next = { ...latest.current, ...fields };
    const [before, fragment] = [formatState(latest.current), formatState(next)];
    window.clearTimeout(waiting.current);
    if (how === 'push' && fragment !== before) {
      // The step begins where the visitor is, which may not have been written yet.
      if (window.location.hash !== before) window.history.replaceState(null, '', before);
      window.history.pushState(null, '', fragment);
    } else {
      waiting.current = window.setTimeout(() => window.history.replaceState(null, '', fragment), URL_REST_MS);
    }
    latest.current = next;
    setState(next);
  }, []);
  return [state, change];
}

function useGraphs(source: string, base: string): Loaded {
  const [loaded, setLoaded] = useState<Loaded>({ status: 'loading' });
  useEffect(() => {
    const abort = new AbortController();
    setLoaded({ status: 'loading' });
    const both = Promise.all([
      loadGraph(source, abort.signal),
      base === '' ? Promise.resolve(undefined) : loadGraph(base, abort.signal),
    ]);
    both.then(
      ([file, other]) => setLoaded({ status: 'ready', file, base: other }),
      (error: unknown) => {
        if (abort.signal.aborted) return;
        const problem = error instanceof LoadError ? error.message : String(error);
        setLoaded({ status: 'failed', problem });
      },
    );
    return () => abort.abort();
  }, [source, base]);
  return loaded;
}
