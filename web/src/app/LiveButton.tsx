// Whether the page follows the present.

import type { JSX } from 'preact';

import { refreshMs } from './selection';
import { followsNow } from './time';
import type { UrlState } from './urlstate';

export function LiveButton(props: { readonly state: UrlState; readonly live: boolean; readonly onPress: () => void }): JSX.Element {
  const { live, state } = props;
  const title = live
    ? `Asks again every ${refreshMs(state) / 1e3} s; click to stand still (l)`
    : followsNow(state.from, state.to)
      ? 'Stands still; click to follow the present (l)'
      : 'Back to the present (l)';
  return (
    <button type="button" class={`live${live ? ' on' : ''}`} aria-pressed={live} title={title} onClick={props.onPress}>
      <span class="dot" aria-hidden="true" />
      Live
    </button>
  );
}

