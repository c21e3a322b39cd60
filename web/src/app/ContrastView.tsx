// The slowest requests of a route against typical ones: one profile by trace, taken apart into two graphs.

import type { JSX } from 'preact';
import { useMemo } from 'preact/hooks';

import type { ColumnarFile } from '../flamegraph/columnar';
import type { Command } from '../flamegraph/keyboard';
import { formatValue } from '../flamegraph/values';
import { FEWEST, contrastOf, graphOfGroup, type Group } from '../requests/contrast';
import type { Requests } from '../requests/scatter';
import { fetchGraph } from './api';
import type { PageProps } from './Bar';
import { Explorer } from './Explorer';
import { Failure } from './Failure';
import { useLoaded } from './loaded';
import { Message } from './Message';
import { profileByTracePath } from './requestsapi';

export function ContrastView(
  props: PageProps & {
    readonly requests: Requests;
    readonly nowMs: number;
    readonly explorerKeys: { current: ((command: Command) => void) | undefined };
  },
): JSX.Element {
  const { state, change, requests, explorerKeys } = props;
  const contrast = useMemo(() => contrastOf(requests), [requests]);
  const path = useMemo(() => {
    if (requests.count === 0) return undefined;
    let [from, to] = [Infinity, 0];
    for (let index = 0; index < requests.count; index++) {
      const start = requests.startMs[index]!;
      const length = requests.durationNs[index]!;
      from = Math.min(from, start);
      to = Math.max(to, start + (Number.isNaN(length) ? 0 : length / 1e6));
    }
    return profileByTracePath(state, from, to);
  }, [requests, state.service]);
  const profile = useLoaded(contrast === undefined ? undefined : path, 0, (signal) => fetchGraph(path!, signal));
  const sides = useMemo(() => {
    const file = profile.value;
    if (file === undefined || contrast === undefined) return undefined;
    const side = (group: Group): ColumnarFile => ({ ...file, graph: graphOfGroup(file.graph, group), samples: 0, durationNs: 0, startUnixMs: 0 });
    return { slow: side(contrast.slow), typical: side(contrast.typical) };
  }, [profile.value, contrast]);
  const back = (
    <button type="button" onClick={() => change({ contrast: '' })}>
      All requests
    </button>
  );
  if (contrast === undefined) {
    explorerKeys.current = undefined;
    return (
      <Message title="Too few requests" text={`To tell slow from typical takes at least ${FEWEST} that have ended, and here are ${requests.count}. A longer time has more.`}>
        {back}
      </Message>
    );
  }
  if (sides === undefined) {
    explorerKeys.current = undefined;
    if (profile.problem === undefined) return <Message tone="busy" title="Loading the profiles of slow and typical requests" />;
    return (
      <Failure problem={profile.problem} what="profile of these requests" onAfresh={() => change({ contrast: '' })}>
        {back}
      </Failure>
    );
  }
  const empty = (['slow', 'typical'] as const).filter((side) => sides[side].graph.total[0] === 0);
  return (
    <>
      <div class="summary">
        <button type="button" class="link" title="Back to all requests" onClick={() => change({ contrast: '', zoom: '', selected: '' })}>
          ‹ All requests
        </button>
        <strong>{state.route || state.service || 'All requests'}</strong>
        <Side side="before" text="typical" group={contrast.typical} />
        <Side side="after" text="the slowest 5 %" group={contrast.slow} />
        <span>CPU of the mean request</span>
      </div>
      {empty.length > 0 ? (
        <Message
          title={empty.length === 2 ? 'Nothing was sampled in these requests' : `Nothing was sampled in the ${empty[0]!} requests`}
          text="They were too short, or waited. A sample is taken of what runs on a CPU."
        >
          {back}
        </Message>
      ) : (
        <Explorer
          file={sides.slow}
          base={sides.typical}
          state={state}
          change={change}
          theme={props.theme}
          nowMs={props.nowMs}
          stale={false}
          keys={explorerKeys}
          onCommand={props.onCommand}
        />
      )}
    </>
  );
}

function Side(props: { readonly side: 'before' | 'after'; readonly text: string; readonly group: Group }): JSX.Element {
  const { group } = props;
  return (
    <span class="facts-line">
      <span class={`side ${props.side}`}>{props.side === 'before' ? 'A' : 'B'}</span>
      {props.text}: {group.count} {group.count === 1 ? 'request' : 'requests'}, {formatValue(group.minNs, 'nanoseconds')} – {formatValue(group.maxNs, 'nanoseconds')}
    </span>
  );
}
