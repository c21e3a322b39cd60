//! Letting go of objects that nobody runs any more: each holds a file, a table and a number.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::ObjectRegistry;
use crate::model::ObjectId;

/// How long an object is kept after the last process had it mapped: programs come again.
const KEEP: Duration = Duration::from_secs(60);

impl ObjectRegistry {
    /// Forgets the objects that no process had mapped in the calls of the last [`KEEP`], and says which
    /// they are. `mapped` are those of now, `needed` those that must stay for other reasons. To be called
    /// when no sample that is still to be named lies in them. O(objects).
    pub fn release_unmapped(
        &mut self,
        mapped: &HashSet<ObjectId>,
        needed: &dyn Fn(ObjectId) -> bool,
        now: Instant,
    ) -> Vec<ObjectId> {
        let vdso = self.vdso.flatten().map(|(id, _)| id);
        let mut released = HashSet::new();
        for &id in self.objects.keys() {
            if mapped.contains(&id) || vdso == Some(id) {
                self.unmapped_since.remove(&id);
                continue;
            }
            let since = *self.unmapped_since.entry(id).or_insert(now);
            if now.saturating_duration_since(since) >= KEEP && !needed(id) {
                released.insert(id);
            }
        }
        for id in &released {
            self.unmapped_since.remove(id);
            if self.objects.remove(id).is_some_and(|object| object.file.is_ok()) {
                self.open_files = self.open_files.saturating_sub(1);
            }
        }
        if !released.is_empty() {
            self.by_build_id.retain(|_, id| !released.contains(id));
            self.by_stamp.retain(|_, content| !content.is_one_of(&released));
            self.lost.retain(|_, id| !released.contains(id));
        }
        released.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LimitedIds, mapping_of, object_of};
    use super::*;

    #[test]
    fn an_object_goes_a_while_after_its_last_process_and_can_come_again() {
        let mut objects = ObjectRegistry::default();
        let mut ids = LimitedIds(8);
        let path = std::env::current_exe().expect("we have an executable");
        let mapping = mapping_of(&path);
        let first = object_of(objects.file_content(mapping, &mut ids));
        let begin = Instant::now();
        let (mapped, nothing) = (HashSet::from([first]), HashSet::new());
        assert!(objects.release_unmapped(&mapped, &|_| false, begin).is_empty());
        assert!(objects.release_unmapped(&nothing, &|_| false, begin).is_empty());
        assert!(objects.release_unmapped(&mapped, &|_| false, begin + KEEP).is_empty(), "it came again");
        assert!(objects.release_unmapped(&nothing, &|_| false, begin + KEEP).is_empty());
        let later = begin + 2 * KEEP;
        assert!(objects.release_unmapped(&nothing, &|_| true, later).is_empty(), "it is still needed");
        assert_eq!(objects.release_unmapped(&nothing, &|_| false, later), [first]);
        assert!(objects.get(first).is_none());
        assert_ne!(object_of(objects.file_content(mapping, &mut ids)), first, "known by nothing any more");
    }
}
