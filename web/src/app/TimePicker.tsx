// Which time is shown: the last minutes, hours or days, or a range that one gives.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import { Popover } from './Popover';
import { PRESETS, formatRange, formatSpan, rangeOf, relativeMs, toLocalInput } from './time';

export function faceOfRange(from: string, to: string, nowMs: number): string {
  const length = relativeMs(from);
  if (to === '' && length !== undefined) {
    const preset = PRESETS.find(([value]) => value === from);
    return `Last ${preset?.[1] ?? formatSpan(length)}`;
  }
  return formatRange(rangeOf(from, to, nowMs), nowMs);
}

export function TimePicker(props: {
  readonly from: string;
  readonly to: string;
  readonly nowMs: number;
  readonly open: boolean;
  readonly onOpen: (open: boolean) => void;
  readonly onPick: (from: string, to: string) => void;
}): JSX.Element {
  const face = faceOfRange(props.from, props.to, props.nowMs);
  return (
    <Popover
      name="time"
      title={`Time: ${face}`}
      open={props.open}
      onOpen={props.onOpen}
      face={
        <>
          <span class="face-text">{face}</span>
          <span class="caret" aria-hidden="true" />
        </>
      }
    >
      <Ranges {...props} />
    </Popover>
  );
}

function Ranges(props: {
  readonly from: string;
  readonly to: string;
  readonly nowMs: number;
  readonly onPick: (from: string, to: string) => void;
}): JSX.Element {
  const range = rangeOf(props.from, props.to, props.nowMs);
  const [from, setFrom] = useState(toLocalInput(range.fromMs));
  const [to, setTo] = useState(toLocalInput(range.toMs));
  const [fromMs, toMs] = [Date.parse(from), Date.parse(to)];
  const sound = fromMs < toMs;
  return (
    <>
      <h3>Last</h3>
      <div class="presets">
        {PRESETS.map(([value, text], place) => {
          const chosen = props.to === '' && props.from === value;
          return (
            <button
              key={value}
              type="button"
              aria-pressed={chosen}
              data-first={chosen || (place === 0 && !PRESETS.some(([other]) => other === props.from)) ? '' : undefined}
              onClick={() => props.onPick(value, '')}
            >
              {text}
            </button>
          );
        })}
      </div>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (sound) props.onPick(String(Math.floor(fromMs / 1e3)), String(Math.ceil(toMs / 1e3)));
        }}
      >
        <h3>From and to</h3>
        <label>
          <span class="visually-hidden">From</span>
          <input type="datetime-local" step="1" value={from} onInput={(event) => setFrom(event.currentTarget.value)} />
        </label>
        <label>
          <span class="visually-hidden">To</span>
          <input type="datetime-local" step="1" value={to} onInput={(event) => setTo(event.currentTarget.value)} />
        </label>
        <div class="row">
          <button type="submit" class="primary" disabled={!sound}>
            Show
          </button>
          <span class="hint">{sound ? formatSpan(toMs - fromMs) : 'ends before it begins'}</span>
        </div>
      </form>
    </>
  );
}
