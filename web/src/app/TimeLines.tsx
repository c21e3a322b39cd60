// A time line with what it is of, and what its mark can be used for.

import type { ComponentChildren, JSX } from 'preact';

import { brushOf, type Side } from './selection';
import { formatRange, parseBrush } from './time';
import { faceOfRange } from './TimePicker';
import type { UrlState } from './urlstate';
import type { ChangeState } from './useUrlState';

export function StripRow(props: {
  readonly side: Side;
  readonly state: UrlState;
  readonly nowMs: number;
  readonly change: ChangeState;
  readonly picker: JSX.Element | undefined;
  readonly children: ComponentChildren;
}): JSX.Element {
  const { side, state, change, nowMs } = props;
  const brush = parseBrush(brushOf(state, side));
  const clear = side === 'after' ? { brush: '' } : { baseBrush: '' };
  return (
    <div class={`line ${side}`}>
      {props.picker !== undefined && (
        <div class="line-of">
          <span class={`side ${side}`} title={side === 'before' ? 'A, the baseline' : 'B, compared with A'}>
            {side === 'before' ? 'A' : 'B'}
          </span>
          {props.picker}
          <span class="muted">{brush === undefined ? faceOfRange(state.from, state.to, nowMs) : formatRange(brush, nowMs)}</span>
        </div>
      )}
      <div class="line-strip">{props.children}</div>
      {(brush !== undefined || props.picker !== undefined) && (
        <div class={`line-tools${brush === undefined ? ' unused' : ''}`}>
          {brush !== undefined && props.picker === undefined && (
            <>
              <span class="muted">{formatRange(brush, nowMs)}</span>
              <button
                type="button"
                title="Make the marked part the whole time line"
                onClick={() => change({ from: String(brush.fromMs / 1e3), to: String(brush.toMs / 1e3), brush: '' })}
              >
                Zoom in
              </button>
            </>
          )}
          <button type="button" title="The whole time line again" aria-label="Remove the mark" onClick={() => change(clear)}>
            ×
          </button>
        </div>
      )}
    </div>
  );
}

