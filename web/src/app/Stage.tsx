// What stands below the time lines: the graph or graphs, or why there are none and what can be done.

import type { JSX } from 'preact';

import type { ColumnarFile } from '../flamegraph/columnar';
import type { Theme } from '../flamegraph/colours';
import type { Command } from '../flamegraph/keyboard';
import type { Verdicts } from '../flamegraph/verdicts';
import { Explorer } from './Explorer';
import { Failure } from './Failure';
import type { Loaded } from './loaded';
import { Message } from './Message';
import { FILTERS, ranItPath, type Side } from './selection';
import { formatMoment } from './time';
import { DEFAULT_STATE, type UrlState } from './urlstate';
import type { ChangeState } from './useUrlState';

/** The graph or graphs, or why there are none. */
export function Stage(props: {
  readonly graphs: Readonly<Record<Side, Loaded<ColumnarFile>>>;
  readonly keys: Readonly<Record<Side, string>>;
  readonly compared: boolean;
  readonly verdicts?: Verdicts | string | undefined;
  readonly nothingYet: boolean;
  readonly state: UrlState;
  readonly change: ChangeState;
  readonly theme: Theme;
  readonly nowMs: number;
  readonly explorerKeys: { current: ((command: Command) => void) | undefined };
  readonly onCommand: (command: Command) => void;
}): JSX.Element {
  const { graphs, keys, state, change, explorerKeys } = props;
  const sides: readonly Side[] = props.compared ? ['before', 'after'] : ['after'];
  const isStale = (side: Side): boolean => graphs[side].key !== keys[side];
  // A failure that may pass takes nothing away that is there; any other does.
  const failed = sides.find((side) => {
    const { problem, value } = graphs[side];
    return problem !== undefined && (!problem.passes || value === undefined || isStale(side)) && !graphs[side].busy;
  });
  const after = graphs.after.value;
  const before = props.compared ? graphs.before.value : undefined;
  const passing = sides.map((side) => graphs[side]).find(({ problem }) => problem !== undefined);
  const isEmpty = after?.graph.total[0] === 0 && (before === undefined || before.graph.total[0] === 0);

  if (props.nothingYet && (failed === undefined || graphs[failed].problem?.kind === 'missing') && (after === undefined || isEmpty)) {
    explorerKeys.current = undefined;
    return (
      <Message tone="busy" title="No samples yet" text="A window is kept every ten seconds: the first is here in a moment. The page looks by itself." />
    );
  }
  if (failed !== undefined) {
    explorerKeys.current = undefined;
    const of = !props.compared ? '' : failed === 'before' ? ' for A, the baseline' : ' for B';
    return (
      <Failure problem={graphs[failed].problem!} what={`flame graph to show${of}`} onAfresh={() => change(DEFAULT_STATE)}>
        <WaysOut state={state} change={change} />
      </Failure>
    );
  }
  if (after === undefined || (props.compared && before === undefined)) {
    explorerKeys.current = undefined;
    return <Message tone="busy" title="Loading the flame graph" />;
  }
  const busy = sides.some((side) => isStale(side));
  const showsNothing = isEmpty && !busy;
  if (showsNothing) explorerKeys.current = undefined;
  return (
    <>
      <div class={`progress${busy ? ' busy' : ''}`} role="progressbar" aria-label="Loading" aria-hidden={!busy} />
      {passing?.problem !== undefined && (
        <p class="banner" role="status">
          {passing.problem.kind === 'offline' ? 'The server does not answer' : passing.problem.message}. This is what it
          said at {formatMoment(passing.answeredAtMs, props.nowMs)}; asking again.
        </p>
      )}
      {showsNothing ? (
        <Idle state={state} change={change} />
      ) : (
        <Explorer
          file={after}
          base={before}
          verdicts={props.verdicts}
          state={state}
          change={change}
          theme={props.theme}
          nowMs={props.nowMs}
          stale={busy}
          keys={explorerKeys}
          onCommand={props.onCommand}
          {...(props.compared || state.source !== '' ? {} : { ranPath: (name: string) => ranItPath(state, name) })}
        />
      )}
    </>
  );
}

const UNFILTERED: Partial<UrlState> = Object.fromEntries(FILTERS.map((filter) => [filter, '']));

/** What can be done when a selection has nothing. */
function WaysOut(props: { readonly state: UrlState; readonly change: ChangeState }): JSX.Element {
  const { state, change } = props;
  const filtered = FILTERS.some((filter) => state[filter] !== '');
  return (
    <>
      {filtered && (
        <button type="button" onClick={() => change(UNFILTERED)}>
          Without the filter
        </button>
      )}
      {state.service !== '' && (
        <button type="button" onClick={() => change({ service: '' })}>
          Whole host
        </button>
      )}
      {(state.brush !== '' || state.baseBrush !== '') && (
        <button type="button" onClick={() => change({ brush: '', baseBrush: '' })}>
          The whole time line
        </button>
      )}
      {state.from !== '-24h' && (
        <button type="button" onClick={() => change({ from: '-24h', to: '', brush: '', baseBrush: '' })}>
          The last 24 hours
        </button>
      )}
    </>
  );
}

function Idle(props: { readonly state: UrlState; readonly change: ChangeState }): JSX.Element {
  const who = props.state.service === '' ? 'Nothing' : `${props.state.service} was idle: nothing of it`;
  return (
    <Message
      title="No samples"
      text={`${who} ran on a CPU in this range. A sample is taken of what runs, so what sleeps or waits has none.`}
    >
      <WaysOut {...props} />
    </Message>
  );
}
