// What narrows a selection besides its service: process, thread, container, trace, span.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import { Popover } from './Popover';
import { FILTERS, type Filter } from './selection';
import type { UrlState } from './urlstate';

const NAMES: Readonly<Record<Filter, string>> = {
  pid: 'Process id',
  thread: 'Thread, by name or id',
  container: 'Container id',
  trace_id: 'Trace id',
  span_id: 'Span id',
};
const SHORT: Readonly<Record<Filter, string>> = {
  pid: 'pid',
  thread: 'thread',
  container: 'container',
  trace_id: 'trace',
  span_id: 'span',
};
/** What the server would refuse is not sent. */
const PATTERNS: Readonly<Record<Filter, string>> = {
  pid: '[0-9]{1,10}',
  thread: '.{1,64}',
  container: '[0-9a-f]{6,64}',
  trace_id: '[0-9a-f]{32}',
  span_id: '[0-9a-f]{16}',
};

export function Filters(props: {
  readonly state: UrlState;
  readonly open: boolean;
  readonly onOpen: (open: boolean) => void;
  readonly onChange: (fields: Partial<UrlState>) => void;
}): JSX.Element {
  const { state } = props;
  const set = FILTERS.filter((filter) => state[filter] !== '');
  return (
    <>
      <Popover
        name="filters"
        title="Only one process, thread or container"
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
          onChange={(fields) => {
            props.onOpen(false);
            props.onChange(fields);
          }}
        />
      </Popover>
      {set.map((filter) => (
        <button
          key={filter}
          type="button"
          class="chip"
          title={`${NAMES[filter]}: ${state[filter]}. Click to show all again.`}
          onClick={() => props.onChange({ [filter]: '' })}
        >
          <span class="muted">{SHORT[filter]}</span> {state[filter]} <span aria-hidden="true">×</span>
        </button>
      ))}
    </>
  );
}

function Form(props: {
  readonly state: UrlState;
  readonly onChange: (fields: Partial<UrlState>) => void;
}): JSX.Element {
  const [fields, setFields] = useState<Record<Filter, string>>(() => {
    const { pid, thread, container, trace_id, span_id } = props.state;
    return { pid, thread, container, trace_id, span_id };
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        props.onChange(fields);
      }}
    >
      {FILTERS.map((filter, place) => (
        <label key={filter}>
          {NAMES[filter]}
          <input
            type="text"
            data-first={place === 0 ? '' : undefined}
            inputMode={filter === 'pid' ? 'numeric' : 'text'}
            pattern={PATTERNS[filter]}
            autocomplete="off"
            spellcheck={false}
            value={fields[filter]}
            onInput={(event) => setFields({ ...fields, [filter]: event.currentTarget.value.trim() })}
          />
        </label>
      ))}
      <div class="row">
        <button type="submit" class="primary">
          Show
        </button>
        <button type="button" onClick={() => props.onChange({ pid: '', thread: '', container: '', trace_id: '', span_id: '' })}>
          Show all
        </button>
      </div>
    </form>
  );
}
