// Requests: all of them as a picture and a list, one as a trace, or the slow ones against typical ones.

import type { JSX } from 'preact';
import { useMemo, useRef, useState } from 'preact/hooks';

import type { Command } from '../flamegraph/keyboard';
import { formatValue } from '../flamegraph/values';
import { formatMarked, lengthNs, listed, outcomeOf, parseMarked, quantile, shareText, type Requests } from '../requests/scatter';
import { fetchServices, serverNowMs } from './api';
import { Bar, type OpenPart, type PageProps } from './Bar';
import { ContrastView } from './ContrastView';
import { Failure } from './Failure';
import { LiveButton } from './LiveButton';
import { useLoaded, useTicks } from './loaded';
import { Message } from './Message';
import { RequestFilters, UNFILTERED, REQUEST_FILTERS } from './RequestFilters';
import { RequestList } from './RequestList';
import { fetchRequests, requestFields } from './requestsapi';
import { Scatter } from './Scatter';
import { isLive, rangeFields, refreshMs, shifted } from './selection';
import { ServicePicker } from './ServicePicker';
import { followsNow, rangeOf } from './time';
import { TimePicker } from './TimePicker';
import { TraceView } from './TraceView';
import { DEFAULT_STATE } from './urlstate';
import { useGlobalKeys } from './useGlobalKeys';

export function RequestsPage(page: PageProps): JSX.Element {
  const { state, change, openPart, setOpenPart } = page;
  const explorerKeys = useRef<((command: Command) => void) | undefined>(undefined);
  const open = (part: OpenPart) => (isOpen: boolean) => setOpenPart(isOpen ? part : '');
  const live = isLive(state) && state.trace === '' && state.contrast === '';
  const [ticks] = useTicks(live, refreshMs(state));
  const [asked, setAsked] = useState(0);
  const tick = ticks + asked;
  const fields = requestFields(state);
  const requests = useLoaded(state.trace === '' ? fields.toString() : undefined, tick, (signal) => fetchRequests(fields, signal));
  const range = rangeFields(state);
  const services = useLoaded(range.toString(), openPart === 'service' ? tick : 0, (signal) => fetchServices(range, signal));
  const nowMs = useMemo(serverNowMs, [tick, requests.value, state.from, state.to]);
  const value = requests.value;
  const routes = useMemo(() => (value === undefined ? [] : routesOf(value)), [value]);

  const obey = (command: Command): void => {
    switch (command.do) {
      case 'service':
      case 'time':
        return setOpenPart(command.do);
      case 'live':
        if (!followsNow(state.from, state.to)) return change({ from: DEFAULT_STATE.from, to: '', marked: '', live: 'on' });
        return change({ live: state.live === 'on' ? 'off' : 'on' }, 'replace');
      case 'refresh':
        return setAsked(asked + 1);
      case 'shift':
        return change({ ...shifted(state, command.step, nowMs), marked: '' });
      case 'search':
        return setOpenPart('filters');
      case 'out':
        if (state.trace !== '' || state.contrast !== '') return change({ trace: '', span: '', contrast: '' });
        return change({ marked: '' });
      default:
        return page.onCommand(command);
    }
  };
  const inner: PageProps = { ...page, onCommand: obey };
  useGlobalKeys((command) => (explorerKeys.current ?? obey)(command), state.direction);
  if (state.trace === '' && state.contrast === '') explorerKeys.current = undefined;

  return (
    <>
      <Bar
        {...page}
        tools={
          <button
            type="button"
            aria-pressed={state.contrast === 'on'}
            title={state.route === '' && routes.length !== 1 ? 'Choose a route first: slow is told by its like' : 'What the slowest 5 % ran, against those around the median'}
            disabled={state.trace !== '' || (state.contrast === '' && state.route === '' && routes.length !== 1)}
            onClick={() => change({ contrast: state.contrast === 'on' ? '' : 'on', view: 'graph', mode: 'absolute', zoom: '', selected: '' })}
          >
            Slow against typical
          </button>
        }
      >
        <ServicePicker
          label="Service"
          services={services.value ?? []}
          value={state.service}
          open={openPart === 'service'}
          onOpen={open('service')}
          onPick={(service) => {
            setOpenPart('');
            change({ service, route: '', marked: '', trace: '', span: '', contrast: '' });
          }}
        />
        <TimePicker
          from={state.from}
          to={state.to}
          nowMs={nowMs}
          open={openPart === 'time'}
          onOpen={open('time')}
          onPick={(from, to) => {
            setOpenPart('');
            change({ from, to, brush: '', baseBrush: '', marked: '', trace: '', span: '' });
          }}
        />
        <LiveButton state={state} live={live} onPress={() => obey({ do: 'live' })} />
        <RequestFilters
          state={state}
          routes={routes}
          open={openPart === 'filters'}
          onOpen={open('filters')}
          onChange={(fields) => change({ ...fields, marked: '', trace: '', span: '', contrast: '' })}
        />
      </Bar>
      {state.trace !== '' ? (
        <TraceView {...inner} nowMs={nowMs} tick={tick} explorerKeys={explorerKeys} />
      ) : value === undefined ? (
        requests.problem === undefined ? (
          <Message tone="busy" title="Loading the requests" />
        ) : (
          <Failure problem={requests.problem} what="list of requests" onAfresh={() => change({ ...DEFAULT_STATE, page: 'requests' })} />
        )
      ) : state.contrast === 'on' ? (
        <ContrastView {...inner} requests={value} nowMs={nowMs} explorerKeys={explorerKeys} />
      ) : (
        <Overview {...inner} requests={value} nowMs={nowMs} routes={routes} isStale={requests.key !== fields.toString()} />
      )}
    </>
  );
}

/** Names of routes, the most asked for first. */
function routesOf(requests: Requests): string[] {
  const counts = new Map<string, number>();
  for (const name of requests.name) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((one, other) => other[1] - one[1]).map(([name]) => routeOf(name));
}

/** `GET /cart/{id}` is of the route `/cart/{id}`; the name of an RPC is its route. */
function routeOf(name: string): string {
  return name.replace(/^[A-Z_]+ (?=\/)/, '');
}

/** What a share of the host's requests says, and what it does not. */
function shareTitle({ sampling }: Requests): string {
  if (sampling === undefined) return '';
  const counted = `Spans of ${sampling.sampled.toLocaleString('en')} of ${sampling.requests.toLocaleString('en')} requests of the host were kept in this range; all of them count in /metrics.`;
  if (sampling.limit === 0) return counted;
  return `${counted} Beyond ${sampling.limit.toLocaleString('en')} spans a second a share of traces is, and more of those that failed or took long (agent.ebpf.network.max_spans_per_second).`;
}

function Overview(
  props: PageProps & { readonly requests: Requests; readonly nowMs: number; readonly routes: readonly string[]; readonly isStale: boolean },
): JSX.Element {
  const { state, change, requests, nowMs } = props;
  const [pointed, setPointed] = useState(-1);
  const marked = parseMarked(state.marked);
  const shown = useMemo(() => listed(requests, marked, state.list, nowMs), [requests, state.marked, state.list, nowMs]);
  const openTrace = (index: number): void => {
    change({ trace: requests.traceId[index]!, span: requests.spanId[index]!, zoom: '', selected: '', search: '', view: 'graph' });
  };
  if (requests.count === 0) {
    const filtered = REQUEST_FILTERS.some((filter) => state[filter] !== '');
    return (
      <Message title="No requests" text={`${state.service === '' ? 'No service of this host' : state.service} was not seen to answer ${filtered ? 'such ' : ''}requests in this range.`}>
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
        {state.from !== '-24h' && (
          <button type="button" onClick={() => change({ from: '-24h', to: '' })}>
            The last 24 hours
          </button>
        )}
      </Message>
    );
  }
  const durations = shown.filter((index) => !Number.isNaN(requests.durationNs[index]!)).map((index) => lengthNs(requests, index, nowMs)).sort((one, other) => one - other);
  const errors = shown.filter((index) => outcomeOf(requests, index) === 'error').length;
  const share = shareText(requests.sampling);
  const text = (ns: number): string => (Number.isNaN(ns) ? '–' : formatValue(ns, 'nanoseconds'));
  return (
    <>
      <div class="summary">
        <span class="facts-line">
          <strong>
            {shown.length.toLocaleString('en')} {shown.length === 1 ? 'request' : 'requests'}
          </strong>
          {share !== '' && (
            <span class="share" title={shareTitle(requests)}>
              {share}
            </span>
          )}
          <span>median {text(quantile(durations, 0.5))}</span>
          <span>p95 {text(quantile(durations, 0.95))}</span>
          <span>p99 {text(quantile(durations, 0.99))}</span>
          <span class={errors > 0 ? 'failed' : ''}>{errors === 1 ? '1 error' : `${errors} errors`}</span>
        </span>
        {marked !== undefined && (
          <button type="button" class="link" onClick={() => change({ marked: '' })}>
            Marked: show all
          </button>
        )}
        {state.route === '' && props.routes.length > 1 && (
          <span class="routes">
            {props.routes.slice(0, 6).map((route) => (
              <button key={route} type="button" class="chip" title={`Only ${route}`} onClick={() => change({ route, marked: '' })}>
                {route}
              </button>
            ))}
          </span>
        )}
      </div>
      <div class={`body requests${props.isStale ? ' stale' : ''}`}>
        <Scatter
          requests={requests}
          range={rangeOf(state.from, state.to, nowMs)}
          marked={marked}
          pointed={pointed}
          nowMs={nowMs}
          theme={props.theme}
          onMark={(mark) => change({ marked: mark === undefined ? '' : formatMarked(mark) }, 'push')}
          onOpen={openTrace}
        />
        <RequestList
          requests={requests}
          listed={shown}
          order={state.list}
          nowMs={nowMs}
          onOrder={(list) => change({ list }, 'replace')}
          onOpen={openTrace}
          onPoint={setPointed}
        />
      </div>
    </>
  );
}
