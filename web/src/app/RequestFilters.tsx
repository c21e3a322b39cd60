// What narrows the requests: route, method, status, errors, durations.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import { Popover } from './Popover';
import type { UrlState } from './urlstate';

export const REQUEST_FILTERS = ['route', 'method', 'status', 'error', 'min', 'max'] as const;
type RequestFilter = (typeof REQUEST_FILTERS)[number];

export const UNFILTERED: Partial<UrlState> = { route: '', method: '', status: '', error: '', min: '', max: '' };

const NAMES: Readonly<Record<RequestFilter, string>> = {
  route: 'Route, or pkg.Service/Method',
  method: 'Method',
  status: 'Status: 404, 5xx',
  error: 'Errors',
  min: 'At least so long: 250ms, 1.5s',
  max: 'At most so long',
};
const SHORT: Readonly<Record<RequestFilter, string>> = { route: 'route', method: 'method', status: 'status', error: 'errors', min: '≥', max: '≤' };
/** What the server would refuse is not sent. */
const PATTERNS: Readonly<Record<RequestFilter, string>> = {
  route: '.{1,512}',
  method: '[A-Za-z_]{1,32}',
  status: '[1-5]xx|[0-9]{1,3}',
  error: 'true|false',
  min: '[0-9]+(\\.[0-9]+)?(us|ms|s|m)',
  max: '[0-9]+(\\.[0-9]+)?(us|ms|s|m)',
};

export function RequestFilters(props: {
  readonly state: UrlState;
  readonly routes: readonly string[];
  readonly open: boolean;
  readonly onOpen: (open: boolean) => void;
  readonly onChange: (fields: Partial<UrlState>) => void;
}): JSX.Element {
  const { state } = props;
  return (
    <>
      <Popover
        name="filters"
        title="Only some of the requests"
        open={props.open}
        onOpen={props.onOpen}
        face={
          <>
            Filter
            <span class="caret" aria-hidden="true" />
          </>
        }
      >
        <Form
          state={state}
          routes={props.routes}
          onChange={(fields) => {
            props.onOpen(false);
            props.onChange(fields);
          }}
        />
      </Popover>
      {REQUEST_FILTERS.filter((filter) => state[filter] !== '').map((filter) => (
        <button
          key={filter}
          type="button"
          class="chip"
          title={`${NAMES[filter]}: ${state[filter]}. Click to show all again.`}
          onClick={() => props.onChange({ [filter]: '' })}
        >
          <span class="muted">{filter === 'error' ? '' : SHORT[filter]}</span>{' '}
          {filter === 'error' ? (state.error === 'true' ? 'errors only' : 'no errors') : state[filter]} <span aria-hidden="true">×</span>
        </button>
      ))}
    </>
  );
}

function Form(props: {
  readonly state: UrlState;
  readonly routes: readonly string[];
  readonly onChange: (fields: Partial<UrlState>) => void;
}): JSX.Element {
  const [fields, setFields] = useState(() => {
    const { route, method, status, error, min, max } = props.state;
    return { route, method, status, error, min, max };
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        props.onChange({ ...fields, method: fields.method.toUpperCase() });
      }}
    >
      {REQUEST_FILTERS.map((filter, place) => (
        <label key={filter}>
          {NAMES[filter]}
          {filter === 'error' ? (
            <select value={fields.error} onChange={(event) => setFields({ ...fields, error: event.currentTarget.value as UrlState['error'] })}>
              <option value="">all requests</option>
              <option value="true">only errors</option>
              <option value="false">no errors</option>
            </select>
          ) : (
            <input
              type="text"
              data-first={place === 0 ? '' : undefined}
              list={filter === 'route' ? 'routes' : undefined}
              pattern={PATTERNS[filter]}
              autocomplete="off"
              spellcheck={false}
              value={fields[filter]}
              onInput={(event) => setFields({ ...fields, [filter]: event.currentTarget.value.trim() })}
            />
          )}
        </label>
      ))}
      <datalist id="routes">
        {props.routes.map((route) => (
          <option key={route} value={route} />
        ))}
      </datalist>
      <div class="row">
        <button type="submit" class="primary">
          Show
        </button>
        <button type="button" onClick={() => props.onChange(UNFILTERED)}>
          Show all
        </button>
      </div>
    </form>
  );
}
