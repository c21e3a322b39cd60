//! Which span of an SDK is the same piece of work as which of ours?
//!
//! Comes in: our spans as they end, and spans that SDKs send, seconds later. Goes out: for each pair that is
//! one, what is to be written into the store (`store/spans/joined.rs` tells how it is read). Never: a guess.
//! Where two spans of ours could be meant, or one that two of an SDK's could mean, they stay apart, and that is
//! counted.
//!
//! A client's span needs none of this: its request carried the SDK's ids, and ours took them (`parents.rs`).
//! Of a server's span the SDK alone knows the id. Evidence, the strongest first:
//!
//! ```text
//! connection  both name the client's port, the SDK's begins while ours lasts, and they are of one trace, of one
//!             process or service, or say the same of the request
//! trace       both are of one trace, because the request carried it or the process sent it on, and of one
//!             process; or, if the SDK names none, of one service
//! request     method, path and status are the same, or RPC, within one process or service, and no other
//!             request could be meant: two spans without a common trace
//! ```
//!
//! Between spans of two traces evidence counts only when every request of that time is known: an SDK of another
//! host may send here, too, and ports are only so many.
//!
//! An SDK may have several servers' spans for one request, one within the other (of the web server, of the framework). The
//! outermost is the request, the others are below it: `outermost.rs`.

mod facts;
mod outermost;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use self::facts::{SameProcess, Told};
use self::outermost::{is_directly_within, may_be_inner, outermost};
use crate::model::span::{
    AttributeValue, JOINED_FROM, JOINED_TO, OWN_LIBRARY, Span, SpanId, SpanKind, TraceId, ids_text,
};

/// Our spans are kept for so long: an SDK sends every five seconds, and again after a failure.
const KEEP_OURS_NS: u64 = 60_000_000_000;
/// … and at most so many, about a kilobyte each.
const MAX_OURS: usize = 16_384;
/// So many of SDKs' may wait.
const MAX_THEIRS: usize = 16_384;
/// When an SDK's span has been here for so long, all of ours are that ended before it was sent.
const SETTLED_AFTER_NS: u64 = 2_000_000_000;
/// Ours may end long after the SDK's, while a body is being sent. It is waited for so long.
const GIVE_UP_AFTER_NS: u64 = 15_000_000_000;
/// A span whose parent is not the one that the request carried may be within another, which ends after it and may be sent
/// five seconds later. So long it waits for that one.
const INNER_AFTER_NS: u64 = 8_000_000_000;
/// How long it takes from one look at an SDK's span to the next, beginning with this and doubling.
const LOOK_AGAIN_AFTER_NS: u64 = 250_000_000;
/// Spans of ours that last longer are looked through for every one of an SDK's, whenever they began.
const LONG_NS: u64 = 1_000_000_000;
/// How far the SDK's clock may be from ours: of one host, but the JVM keeps its own for a trace.
const CLOCK_TOLERANCE_NS: u64 = 2_000_000;
/// A handler may go on so long after the last byte of its response, if nothing but its content says whose it is.
const AFTERWARDS_NS: u64 = 100_000_000;

/// Why two spans are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// The same request by its content, and no other could be meant.
    Request,
    /// One trace and one process or service.
    Trace,
    /// The client's port.
    Connection,
}

/// What became of servers' spans that SDKs sent. Only ever grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct JoinCounts {
    pub by_connection: u64,
    pub by_trace: u64,
    pub by_request: u64,
    pub not_seen: u64,
    pub ambiguous: u64,
    pub inner: u64,
    pub no_room: u64,
    /// Those that wait.
    pub waiting: u64,
    /// Spans of ours that are kept to be compared with.
    pub kept: u64,
}

impl JoinCounts {
    /// Those that are one with one of ours, by evidence.
    #[must_use]
    pub fn joined(&self) -> [(&'static str, u64); 3] {
        [("connection", self.by_connection), ("trace", self.by_trace), ("request", self.by_request)]
    }

    /// Those that are not, by reason: nothing of ours could be it (another host, encrypted, before our time);
    /// several of ours could be it, or it and others the same one of ours; it is within another that is the request; there
    /// was no room to wait.
    #[must_use]
    pub fn apart(&self) -> [(&'static str, u64); 4] {
        [
            ("not_seen", self.not_seen),
            ("ambiguous", self.ambiguous),
            ("inner", self.inner),
            ("no_room", self.no_room),
        ]
    }
}

/// A pair that is one.
#[derive(Debug)]
pub struct Join {
    /// What is to be written, in this order: ours under the SDK's ids, and ours without its content.
    pub write: [Span; 2],
    /// The process, by its number in the initial namespace.
    pub pid: Option<i64>,
    /// How that is known.
    pub evidence: Evidence,
}

type Ids = (TraceId, SpanId);
/// By start, so that those of a time are found.
type OursKey = (u64, SpanId, TraceId);

#[derive(Debug)]
struct Ours {
    told: Told,
    came_ns: u64,
    span: Span,
}

#[derive(Debug)]
struct Theirs {
    told: Told,
    came_ns: u64,
    /// Not before then is there another look at it.
    look_at_ns: u64,
}

enum Found {
    One(OursKey, Evidence),
    /// None yet.
    Nothing,
    Several,
}

type IsIt = fn(&Told, &Told) -> bool;

const STEPS: [(Evidence, IsIt); 4] = [
    (Evidence::Connection, |ours, theirs| {
        let is_same = ours.trace_id == theirs.trace_id
            || ours.facts.same_process(&theirs.facts) != SameProcess::Unknown
            || ours.facts.is_same_request(&theirs.facts);
        is_same && ours.facts.is_same_connection(&theirs.facts)
    }),
    (Evidence::Trace, |ours, theirs| {
        ours.trace_id == theirs.trace_id && ours.facts.same_process(&theirs.facts) == SameProcess::Known
    }),
    (Evidence::Trace, |ours, theirs| {
        ours.trace_id == theirs.trace_id && ours.facts.same_process(&theirs.facts) == SameProcess::Service
    }),
    (Evidence::Request, |ours, theirs| {
        ours.facts.same_process(&theirs.facts) != SameProcess::Unknown
            && ours.facts.is_same_request(&theirs.facts)
    }),
];

/// See the module's description.
#[derive(Debug, Default)]
pub struct Joiner {
    ours: BTreeMap<OursKey, Ours>,
    by_trace: HashMap<TraceId, Vec<OursKey>>,
    /// In the order in which they came, with when that was.
    arrivals: VecDeque<(u64, OursKey)>,
    /// Those of ours that last for long, or are open.
    long: BTreeSet<OursKey>,
    theirs: Vec<Theirs>,
    counts: JoinCounts,
}

impl Joiner {
    /// Takes a span of ours: one that has ended, or that is shown while it is open.
    pub fn take_ours(&mut self, span: &Span, now_ns: u64) {
        if span.kind != SpanKind::Server {
            return;
        }
        let key = (span.start_unix_ns, span.span_id, span.trace_id);
        let ours = Ours { told: Told::of(span), came_ns: now_ns, span: span.clone() };
        match span.duration_ns() {
            Some(duration_ns) if duration_ns <= LONG_NS => self.long.remove(&key),
            _ => self.long.insert(key),
        };
        match self.ours.insert(key, ours) {
            None => self.by_trace.entry(span.trace_id).or_default().push(key),
            // It was open, and somebody may have waited for its end.
            Some(_) => self.theirs.iter_mut().for_each(|theirs| theirs.look_at_ns = now_ns),
        }
        self.arrivals.push_back((now_ns, key));
        while let Some(&(came_ns, key)) = self.arrivals.front()
            && (came_ns.saturating_add(KEEP_OURS_NS) < now_ns || self.arrivals.len() > MAX_OURS)
        {
            self.arrivals.pop_front();
            // One that was open and has ended came again later.
            if self.ours.get(&key).is_some_and(|ours| ours.came_ns == came_ns) {
                self.forget(key);
            }
        }
    }

    fn forget(&mut self, key: OursKey) {
        self.ours.remove(&key);
        self.long.remove(&key);
        if let Some(of_trace) = self.by_trace.get_mut(&key.2) {
            of_trace.retain(|&other| other != key);
            if of_trace.is_empty() {
                self.by_trace.remove(&key.2);
            }
        }
    }

    /// Takes a span that was sent here.
    pub fn take_theirs(&mut self, span: &Span, now_ns: u64) {
        if span.kind != SpanKind::Server || span.scope.0 == OWN_LIBRARY {
            return;
        }
        if self.theirs.len() >= MAX_THEIRS {
            self.counts.no_room += 1;
            return;
        }
        self.theirs.push(Theirs { told: Told::of(span), came_ns: now_ns, look_at_ns: now_ns });
    }

    /// Whether anything waits to be decided.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.theirs.is_empty()
    }

    /// What became of all so far.
    #[must_use]
    pub fn counts(&self) -> JoinCounts {
        JoinCounts { waiting: self.theirs.len() as u64, kept: self.ours.len() as u64, ..self.counts }
    }

    /// Decides what can be decided now. O(of SDKs' that are due · (of ours that began then + of ours that last)).
    pub fn settle(&mut self, now_ns: u64) -> Vec<Join> {
        let mut claims: BTreeMap<OursKey, Vec<(Evidence, Theirs)>> = BTreeMap::new();
        for mut theirs in std::mem::take(&mut self.theirs) {
            if theirs.look_at_ns > now_ns {
                self.theirs.push(theirs);
                continue;
            }
            let age_ns = now_ns.saturating_sub(theirs.came_ns);
            theirs.look_at_ns = theirs.came_ns.saturating_add(next_look(age_ns));
            match self.find(&theirs.told) {
                Found::One(key, evidence) if self.is_due(key, evidence, &theirs, now_ns) => {
                    claims.entry(key).or_default().push((evidence, theirs));
                }
                Found::One(..) => self.theirs.push(theirs),
                Found::Nothing if age_ns >= GIVE_UP_AFTER_NS => self.counts.not_seen += 1,
                Found::Several if age_ns >= SETTLED_AFTER_NS => self.counts.ambiguous += 1,
                Found::Nothing | Found::Several => self.theirs.push(theirs),
            }
        }
        let mut joins = Vec::new();
        let mut requests: HashMap<Ids, Told> = HashMap::new();
        for (key, claimants) in claims {
            let all = claimants.len() as u64;
            let Some(ours) = self.ours.get(&key) else { continue };
            let (request, inner) = outermost(claimants, &ours.told);
            self.counts.inner += inner;
            self.counts.ambiguous += all - inner - u64::from(request.is_some());
            if let Some((evidence, theirs)) = request {
                joins.extend(self.join(key, evidence, &theirs));
                requests.insert((theirs.told.trace_id, theirs.told.span_id), theirs.told);
            }
        }
        if !requests.is_empty() {
            // What has come before the span that it is within.
            let waiting = self.theirs.len();
            self.theirs.retain(|theirs| {
                let parent = theirs.told.parent_span_id.map(|parent| (theirs.told.trace_id, parent));
                let parent = parent.and_then(|parent| requests.get(&parent));
                !parent.is_some_and(|request| is_directly_within(&theirs.told, request))
            });
            self.counts.inner += (waiting - self.theirs.len()) as u64;
        }
        joins
    }

    /// Whether nothing is to come that could speak against it.
    fn is_due(&self, key: OursKey, evidence: Evidence, theirs: &Theirs, now_ns: u64) -> bool {
        let Some(ours) = self.ours.get(&key) else { return false };
        let since_ns = |came_ns: u64| now_ns.saturating_sub(came_ns);
        if may_be_inner(&theirs.told, &ours.told) {
            return since_ns(theirs.came_ns.max(ours.came_ns)) >= INNER_AFTER_NS;
        }
        // A connection has one request at a time. Of a trace, another of ours may be on its way.
        (evidence == Evidence::Connection && key.2 == theirs.told.trace_id)
            || since_ns(theirs.came_ns) >= SETTLED_AFTER_NS
    }

    /// Which of ours it is.
    fn find(&self, theirs: &Told) -> Found {
        let of_trace = self.by_trace.get(&theirs.trace_id).into_iter().flatten();
        let found = among(of_trace.filter_map(|key| self.ours.get_key_value(key)), theirs);
        if !matches!(found, Found::Nothing) {
            return found;
        }
        let time = theirs.start_unix_ns;
        let earliest = time.saturating_sub(LONG_NS).saturating_sub(CLOCK_TOLERANCE_NS);
        let latest = time.saturating_add(CLOCK_TOLERANCE_NS);
        let from = (earliest, SpanId::nonzero([0; 8]), TraceId::nonzero([0; 16]));
        let to = (latest, SpanId::nonzero([0xff; 8]), TraceId::nonzero([0xff; 16]));
        let short = self.ours.range(from..=to).filter(|(key, _)| !self.long.contains(key));
        let long = self.long.iter().filter_map(|key| self.ours.get_key_value(key));
        among(short.chain(long), theirs)
    }

    fn join(&mut self, key: OursKey, evidence: Evidence, theirs: &Theirs) -> Option<Join> {
        let span = self.ours.get(&key)?.span.clone();
        self.forget(key);
        match evidence {
            Evidence::Connection => self.counts.by_connection += 1,
            Evidence::Trace => self.counts.by_trace += 1,
            Evidence::Request => self.counts.by_request += 1,
        }
        let name_of = |ids: Ids| AttributeValue::Text(ids_text(ids.0, ids.1).into());
        let (before, after) = ((span.trace_id, span.span_id), (theirs.told.trace_id, theirs.told.span_id));
        let pid = crate::model::span::integer_of(&span.resource.attributes, "process.pid");
        let mut beside = span.clone();
        (beside.trace_id, beside.span_id) = after;
        beside.attributes.push((Cow::Borrowed(JOINED_FROM), name_of(before)));
        let gone = Span {
            attributes: vec![(Cow::Borrowed(JOINED_TO), name_of(after))],
            events: Vec::new(),
            links: Vec::new(),
            ..span
        };
        Some(Join { write: [beside, gone], pid, evidence })
    }
}

impl Ours {
    fn ended_before(&self, theirs: &Told) -> bool {
        let end = self.told.end_unix_ns.unwrap_or(u64::MAX).saturating_add(AFTERWARDS_NS);
        theirs.end_unix_ns.is_some_and(|theirs| theirs > end)
    }

    fn lasted_at(&self, time_unix_ns: u64, tolerance_ns: u64) -> bool {
        let end = self.told.end_unix_ns.unwrap_or(u64::MAX);
        self.told.start_unix_ns.saturating_sub(tolerance_ns) <= time_unix_ns
            && time_unix_ns <= end.saturating_add(tolerance_ns)
    }
}

/// At which age there is another look at an SDK's span of this age: soon, since ours are written within a second;
/// then when what is known by then decides; and ever more seldom, since most that were not found never are.
fn next_look(age_ns: u64) -> u64 {
    let next = LOOK_AGAIN_AFTER_NS.max(age_ns.saturating_mul(2));
    [SETTLED_AFTER_NS, INNER_AFTER_NS, GIVE_UP_AFTER_NS]
        .into_iter()
        .find(|&due| age_ns < due)
        .map_or(next, |due| next.min(due))
}

/// Which of these it is, by the strongest evidence there is.
fn among<'a>(ours: impl Iterator<Item = (&'a OursKey, &'a Ours)>, theirs: &Told) -> Found {
    let candidates: Vec<(&OursKey, &Ours)> = ours
        .filter(|(_, ours)| {
            ours.lasted_at(theirs.start_unix_ns, CLOCK_TOLERANCE_NS)
                && !ours.told.facts.contradict(&theirs.facts)
                && (ours.told.trace_id == theirs.trace_id || !ours.ended_before(theirs))
        })
        .collect();
    for (evidence, is_it) in STEPS {
        let mut found: Vec<_> =
            candidates.iter().filter(|(_, ours)| is_it(&ours.told, theirs)).copied().collect();
        if found.len() > 1 && evidence > Evidence::Request {
            // On one connection, or in one trace, requests follow each other closely.
            found.retain(|(_, ours)| ours.lasted_at(theirs.start_unix_ns, 0));
        }
        match found.as_slice() {
            [] => {}
            [(key, ours)] if ours.told.end_unix_ns.is_some() => return Found::One(**key, evidence),
            // It is joined when it has ended.
            [_] => return Found::Nothing,
            _ => return Found::Several,
        }
    }
    Found::Nothing
}
