// Profiles: what is chosen to be looked at, the time lines, and below them the graph.

import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';

import type { ColumnarFile } from '../flamegraph/columnar';
import type { Command } from '../flamegraph/keyboard';
import type { Verdicts } from '../flamegraph/verdicts';
import { fetchGraph, fetchServices, fetchTimeline, fetchTypes, fetchVerdicts, serverNowMs, type Timeline } from './api';
import { Bar, type OpenPart, type PageProps } from './Bar';
import { Downloads } from './Downloads';
import { Filters } from './Filters';
import { LiveButton } from './LiveButton';
import { useLoaded, useTicks, type Loaded } from './loaded';
import { brushOf, firstComparison, graphPath, isLive, rangeFields, refreshMs, selectors, serviceOf, shifted, verdictsPath, type Side } from './selection';
import { ServicePicker } from './ServicePicker';
import { Stage } from './Stage';
import { followsNow, formatBrush, parseBrush, rangeOf } from './time';
import { StripRow } from './TimeLines';
import { TimePicker } from './TimePicker';
import { TimeStrip } from './TimeStrip';
import { DEFAULT_STATE, type UrlState } from './urlstate';
import { useGlobalKeys } from './useGlobalKeys';

/** How often the first samples are looked for. */
const FIRST_SAMPLES_MS = 2_000;

const TYPE_NAMES: Readonly<Record<string, string>> = {
  cpu: 'CPU',
  samples: 'Samples',
  offcpu: 'Off CPU',
  wall: 'Wall clock',
  lock: 'Locks',
  memory: 'Memory',
  gpu: 'GPU',
};

export function ProfilePage(page: PageProps): JSX.Element {
  const { state, change, theme, openPart, setOpenPart } = page;
  const explorerKeys = useRef<((command: Command) => void) | undefined>(undefined);
  const open = (part: OpenPart) => (isOpen: boolean) => setOpenPart(isOpen ? part : '');

  const isRaw = state.source !== '';
  const compared = isRaw ? state.base !== '' : state.compare === 'on';
  const live = isLive(state);
  // A server that has just started has no samples yet: they are waited for, even if the page stands still.
  const [isWaiting, setWaiting] = useState(false);
  const [ticks] = useTicks(live || isWaiting, isWaiting ? FIRST_SAMPLES_MS : refreshMs(state));
  const [asked, setAsked] = useState(0);
  const tick = ticks + asked;

  // The graph is asked for first: the server brings itself up to the present for whoever comes first.
  const graphs = {
    after: useGraph(isRaw ? state.source : graphPath(state, 'after'), state.brush === '' ? tick : asked),
    before: useGraph(
      !compared ? undefined : isRaw ? state.base : graphPath(state, 'before'),
      state.baseBrush === '' ? tick : asked,
    ),
  };
  // What is certain is asked for when both graphs are there, so that nobody waits longer for these.
  const hasBoth = graphs.after.key === graphPath(state, 'after') && graphs.before.key === graphPath(state, 'before');
  const ofVerdicts = compared && !isRaw ? verdictsPath(state) : undefined;
  const moves = state.brush === '' || state.baseBrush === '';
  const verdicts = useLoaded(hasBoth ? ofVerdicts : undefined, moves ? tick : asked, (signal) => fetchVerdicts(ofVerdicts!, signal));
  const timelines = {
    after: useTimeline(state, 'after', !isRaw, tick),
    before: useTimeline(state, 'before', !isRaw && compared, tick),
  };
  // Services are looked up anew when somebody looks at them; types, when there are none.
  const listing = openPart === 'service' || openPart === 'baseService';
  const range = rangeFields(state);
  const services = useLoaded(isRaw ? undefined : range.toString(), isWaiting || listing ? tick : asked, (signal) => fetchServices(range, signal));
  const types = useLoaded(isRaw ? undefined : range.toString(), isWaiting ? tick : asked, (signal) => fetchTypes(range, signal));
  const nothingYet = !isRaw && services.value?.length === 0 && state.service === '' && followsNow(state.from, state.to);
  useEffect(() => setWaiting(nothingYet), [nothingYet]);

  const nowMs = useMemo(serverNowMs, [tick, state.from, state.to, state.brush, state.baseBrush, services.value]);
  const extent = rangeOf(state.from, state.to, nowMs);
  const file = graphs.after.value;
  const type = types.value?.find(({ name }) => name === state.type) ?? types.value?.[0];
  const kind = file?.kind ?? type?.name ?? '';
  const unit = file?.unit ?? type?.unit ?? '';

  const obey = (command: Command): void => {
    switch (command.do) {
      case 'service':
        return setOpenPart('service');
      case 'time':
        return setOpenPart('time');
      case 'download':
        return setOpenPart('downloads');
      case 'live':
        if (!followsNow(state.from, state.to)) return change({ from: DEFAULT_STATE.from, to: '', brush: '', live: 'on' });
        return change({ live: state.live === 'on' ? 'off' : 'on' }, 'replace');
      case 'refresh':
        return setAsked(asked + 1);
      case 'compare':
        if (compared) return change({ compare: 'off', baseBrush: '', baseService: '', base: '' });
        return isRaw ? undefined : change(firstComparison(state, nowMs, firstValueMs(timelines.after.value)));
      case 'shift':
        return change(shifted(state, command.step, nowMs));
      default:
        return page.onCommand(command);
    }
  };
  useGlobalKeys((command) => (explorerKeys.current ?? obey)(command), state.direction);

  const picker = (side: Side): JSX.Element => (
    <ServicePicker
      label={!compared ? 'Service' : side === 'before' ? 'Service of A, the baseline' : 'Service of B'}
      services={services.value ?? []}
      value={serviceOf(state, side)}
      open={openPart === (side === 'after' ? 'service' : 'baseService')}
      onOpen={open(side === 'after' ? 'service' : 'baseService')}
      onPick={(service) => {
        setOpenPart('');
        if (side === 'before') return change({ baseService: service === state.service ? '' : service || '*' });
        // The baseline stays what it is, unless it was the same.
        return change({ service, zoom: '', selected: '', function: '' });
      }}
    />
  );
  const strip = (side: Side): JSX.Element => (
    <TimeStrip
      side={side}
      paired={compared}
      timeline={timelines[side].value}
      range={extent}
      brush={parseBrush(brushOf(state, side))}
      kind={kind}
      unit={unit}
      nowMs={nowMs}
      theme={theme}
      busy={timelines[side].busy}
      onBrush={(brush) => {
        const text = brush === undefined ? '' : formatBrush(brush);
        change(side === 'after' ? { brush: text } : { baseBrush: text }, 'push');
      }}
    />
  );

  return (
    <>
      <Bar
        {...page}
        tools={
          !isRaw && (
            <>
              <button
                type="button"
                aria-pressed={compared}
                title="Compare with another time or service (c)"
                onClick={() => obey({ do: 'compare' })}
              >
                Compare
              </button>
              <Downloads state={state} nowMs={nowMs} open={openPart === 'downloads'} onOpen={open('downloads')} />
            </>
          )
        }
      >
        {!isRaw && (
          <>
            {!compared && picker('after')}
            <select
              class="type"
              aria-label="What is measured"
              title="What is measured"
              value={state.type === '' ? type?.name : state.type}
              onChange={(event) => change({ type: event.currentTarget.value, zoom: '', selected: '' })}
            >
              {(types.value ?? []).map(({ name }) => (
                <option key={name} value={name}>
                  {TYPE_NAMES[name] ?? name}
                </option>
              ))}
              {state.type !== '' && types.value?.some(({ name }) => name === state.type) !== true && (
                <option value={state.type}>{TYPE_NAMES[state.type] ?? state.type}</option>
              )}
              {state.type === '' && (types.value ?? []).length === 0 && <option value="">CPU</option>}
            </select>
            <TimePicker
              from={state.from}
              to={state.to}
              nowMs={nowMs}
              open={openPart === 'time'}
              onOpen={open('time')}
              onPick={(from, to) => {
                setOpenPart('');
                change({ from, to, brush: '', baseBrush: '' });
              }}
            />
            <LiveButton state={state} live={live} onPress={() => obey({ do: 'live' })} />
            <Filters state={state} open={openPart === 'filters'} onOpen={open('filters')} onChange={(fields) => change(fields)} />
          </>
        )}
      </Bar>
      {!isRaw && (
        <section class="lines" aria-label="Time">
          {compared && (
            <StripRow side="before" state={state} nowMs={nowMs} change={change} picker={picker('before')}>
              {strip('before')}
            </StripRow>
          )}
          <StripRow
            side="after"
            state={state}
            nowMs={nowMs}
            change={change}
            picker={compared ? picker('after') : undefined}
          >
            {strip('after')}
          </StripRow>
        </section>
      )}
      <Stage
        graphs={graphs}
        compared={compared}
        verdicts={verdictsToShow(verdicts, ofVerdicts)}
        keys={{
          after: isRaw ? state.source : graphPath(state, 'after'),
          before: isRaw ? state.base : graphPath(state, 'before'),
        }}
        nothingYet={nothingYet}
        state={state}
        change={change}
        theme={theme}
        nowMs={nowMs}
        explorerKeys={explorerKeys}
        onCommand={obey}
      />
    </>
  );
}

/** What is certain, or a sentence while that is not known; nothing where it is not asked. */
function verdictsToShow(verdicts: Loaded<Verdicts>, path: string | undefined): Verdicts | string | undefined {
  if (path === undefined) return undefined;
  if (verdicts.value !== undefined && verdicts.key === path) return verdicts.value;
  return verdicts.problem === undefined ? 'Telling changes from noise …' : `No marks: ${verdicts.problem.message}`;
}

function useTimeline(state: UrlState, side: Side, wanted: boolean, tick: number): Loaded<Timeline> {
  const fields = selectors(state, side, 'whole');
  return useLoaded(wanted ? fields.toString() : undefined, tick, (signal) => fetchTimeline(fields, signal));
}

/** Where a time line begins to have something, 0 if that is not known. */
function firstValueMs(timeline: Timeline | undefined): number {
  return timeline?.points.find(({ value }) => value > 0)?.ms ?? 0;
}

function useGraph(path: string | undefined, tick: number): Loaded<ColumnarFile> {
  return useLoaded(path, tick, (signal) => fetchGraph(path!, signal));
}
