use std::path::{Path, PathBuf};

use super::*;

struct CountingIds(u32);

impl ObjectIds for CountingIds {
    fn next_object_id(&mut self) -> Option<ObjectId> {
        self.0 += 1;
        Some(ObjectId(self.0))
    }
}

struct World {
    table: ProcessTable,
    objects: ObjectRegistry,
    ids: CountingIds,
}

impl World {
    fn new(interest: Interest) -> Self {
        let (objects, ids) = (ObjectRegistry::default(), CountingIds(0));
        Self { table: ProcessTable::new(interest), objects, ids }
    }

    fn apply(&mut self, event: &ProcessEvent) {
        self.table.apply(event, &mut self.objects, &mut self.ids);
    }

    fn ranges(&self, pid: u32) -> Vec<(u64, u64)> {
        let process = self.table.get(pid).expect("the process is known");
        process.mappings.as_slice().iter().map(|mapping| (mapping.begin, mapping.end)).collect()
    }
}

/// Far beyond `pid_max`: no such process can exist.
const NOBODY: u32 = 0x7fff_0000;

fn sample(pid: u32, time_ns: u64) -> RawSample {
    RawSample {
        time_ns,
        weight_ns: 1,
        pid,
        tid: pid,
        request: None,
        said: None,
        labels: Vec::new(),
        image: ImageId::default(),
        comm: String::new(),
        thread_name: String::new(),
        kernel_truncated: false,
        kernel: vec![],
        user: vec![],
        aside: Vec::new(),
        script_outcome: crate::model::ScriptOutcome::NONE,
        outcome: crate::model::Outcome::Complete,
        stopped_at: 0,
    }
}

/// Later than anything that is read from /proc in these tests.
const LATER_NS: u64 = u64::MAX / 2;

fn anonymous(pid: u32, begin: u64, length: u64) -> ProcessEvent {
    ProcessEvent::Mapped {
        time_ns: LATER_NS,
        pid,
        tid: pid,
        begin,
        length,
        file_offset: 0,
        device: (0, 0),
        inode: 0,
        build_id: None,
        path: PathBuf::from("//anon"),
    }
}

fn forked(pid: u32, parent_pid: u32) -> ProcessEvent {
    ProcessEvent::Forked { time_ns: LATER_NS, pid, tid: pid, parent_pid, parent_tid: parent_pid }
}

#[test]
fn a_child_inherits_mappings_and_loses_them_at_exec() {
    let mut world = World::new(Interest::All);
    world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
    world.apply(&forked(NOBODY + 1, NOBODY));
    assert_eq!(world.ranges(NOBODY + 1), [(0x1000, 0x2000)]);
    world.apply(&ProcessEvent::Exec { time_ns: LATER_NS, pid: NOBODY + 1, comm: "new".to_owned() });
    world.apply(&anonymous(NOBODY + 1, 0x8000, 0x1000));
    assert_eq!(world.ranges(NOBODY + 1), [(0x8000, 0x9000)]);
    assert_eq!(world.ranges(NOBODY), [(0x1000, 0x2000)], "the parent keeps its own");
    assert!(world.table.get(NOBODY + 1).is_some_and(|child| child.started_under_watch));
    assert!(world.table.get(NOBODY).is_some_and(|parent| !parent.started_under_watch));
}

#[test]
fn a_new_thread_changes_nothing() {
    let mut world = World::new(Interest::All);
    world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
    world.table.take_changed();
    world.apply(&ProcessEvent::Forked {
        time_ns: 0,
        pid: NOBODY,
        tid: NOBODY + 1,
        parent_pid: NOBODY,
        parent_tid: NOBODY,
    });
    assert!(world.table.take_changed().is_empty());
}

#[test]
fn only_what_was_asked_for_and_its_children_are_kept() {
    let pids = HashSet::from([NOBODY]);
    let mut world = World::new(Interest::Only { pids, follow_children: true });
    world.apply(&anonymous(NOBODY + 5, 0x1000, 0x1000));
    world.apply(&forked(NOBODY + 6, NOBODY + 5));
    world.apply(&forked(NOBODY + 1, NOBODY));
    world.apply(&forked(NOBODY + 2, NOBODY + 1));
    assert!(world.table.get(NOBODY + 5).is_none());
    assert!(world.table.get(NOBODY + 6).is_none());
    assert!(world.table.get(NOBODY + 2).is_some(), "a grandchild is a child's child");
}

#[test]
fn a_process_ends_once_and_is_remembered() {
    let mut world = World::new(Interest::All);
    world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
    let exit = ProcessEvent::Exited { time_ns: 0, pid: NOBODY, tid: NOBODY };
    world.apply(&exit);
    // Others of this host may have ended between the listing and the reading.
    assert!(world.table.take_ended().contains(&NOBODY));
    world.apply(&exit);
    assert!(world.table.take_ended().is_empty());
    assert_eq!(world.ranges(NOBODY), [(0x1000, 0x2000)], "its samples can still be named");
}

#[test]
fn a_thread_that_ends_does_not_end_its_process() {
    let mut world = World::new(Interest::All);
    let this = std::process::id();
    assert!(world.table.read_process(this, &mut world.objects, &mut world.ids));
    world.apply(&ProcessEvent::Exited { time_ns: 0, pid: this, tid: this + 1 });
    assert!(world.table.take_ended().is_empty());
}

#[test]
fn ended_processes_are_forgotten_after_a_while_and_what_was_sampled_of_them_is_not() {
    let mut world = World::new(Interest::All);
    for pid in [NOBODY, NOBODY + 1] {
        world.apply(&anonymous(pid, 0x1000, 0x1000));
    }
    let mut sample = sample(NOBODY, LATER_NS);
    world.table.attribute(&mut sample);
    for pid in [NOBODY, NOBODY + 1] {
        world.apply(&ProcessEvent::Exited { time_ns: LATER_NS, pid, tid: pid });
    }
    let unsampled = world.table.get(NOBODY + 1).expect("known").image;
    let now = Instant::now();
    assert_eq!(world.table.take_ended_at(now).len(), 2);
    assert!(world.table.get(NOBODY).is_some_and(|process| process.exited));
    assert!(world.table.take_ended_at(now + REMEMBER_ENDED).is_empty());
    assert!(world.table.get(NOBODY).is_none() && world.table.get(NOBODY + 1).is_none());
    assert!(world.table.image(sample.image).is_some_and(|image| image.pid == NOBODY));
    assert!(world.table.image(unsampled).is_none());
}

#[test]
fn a_sample_is_of_the_program_that_ran_when_it_was_taken() {
    let mut world = World::new(Interest::All);
    world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
    let before = world.table.get(NOBODY).expect("known").image;
    world.apply(&ProcessEvent::Exec { time_ns: LATER_NS, pid: NOBODY, comm: "new".to_owned() });
    world.apply(&anonymous(NOBODY, 0x8000, 0x1000));
    let (mut early, mut late) = (sample(NOBODY, LATER_NS - 1), sample(NOBODY, LATER_NS));
    for sample in [&mut early, &mut late] {
        sample.user = vec![RawFrame::Process { address: 0x8010 }];
        world.table.attribute(sample);
    }
    assert_eq!(early.image, before);
    assert_eq!(early.user, [RawFrame::Process { address: 0x8010 }], "not what the new program has there");
    assert_ne!(late.image, before);
    assert_eq!(late.user, [RawFrame::Generated { address: 0x8010 }]);
}

#[test]
fn records_that_proc_has_overtaken_change_nothing() {
    let mut world = World::new(Interest::All);
    let this = std::process::id();
    assert!(world.table.read_process(this, &mut world.objects, &mut world.ids));
    let (image, ranges) = (world.table.get(this).expect("known").image, world.ranges(this));
    world.apply(&ProcessEvent::Exec { time_ns: 1, pid: this, comm: "old".to_owned() });
    world.apply(&ProcessEvent::Forked { time_ns: 1, pid: this, tid: this, parent_pid: 1, parent_tid: 1 });
    let ProcessEvent::Mapped { tid, device, inode, build_id, path, .. } = anonymous(this, 0, 0) else {
        panic!("it is a mapping")
    };
    let (begin, length, file_offset) = (0x1000, 0x1000, 0);
    let mapped = ProcessEvent::Mapped {
        time_ns: 1,
        pid: this,
        tid,
        begin,
        length,
        file_offset,
        device,
        inode,
        build_id,
        path,
    };
    world.apply(&mapped);
    assert_eq!(world.ranges(this), ranges);
    let process = world.table.get(this).expect("known");
    assert!(process.image == image && process.started_under_watch);
}

#[test]
fn a_scan_reads_every_process_once_and_notices_those_that_are_gone() {
    let mut world = World::new(Interest::All);
    world.apply(&anonymous(NOBODY, 0x1000, 0x1000));
    world.table.begin_scan().expect("/proc can be listed");
    assert_eq!(world.table.due_in(), Some(Duration::ZERO));
    let mut rounds = 0;
    while world.table.scan.is_some() {
        world.table.scan(Duration::ZERO, &mut world.objects, &mut world.ids);
        rounds += 1;
    }
    assert!(rounds > 1, "a budget is kept");
    assert!(!world.ranges(std::process::id()).is_empty());
    // Others of this host may have ended between the listing and the reading.
    assert!(world.table.take_ended().contains(&NOBODY));
}

#[test]
fn our_own_process_has_its_executable_its_libraries_and_the_vdso() {
    let mut world = World::new(Interest::All);
    let this = std::process::id();
    assert!(world.table.read_process(this, &mut world.objects, &mut world.ids));
    let process = world.table.get(this).expect("we are known");
    let image = world.table.image(process.image).expect("our image is known");
    assert_eq!(Some(&image.executable), std::env::current_exe().ok().as_ref());
    let here = our_own_process_has_its_executable_its_libraries_and_the_vdso as fn() as usize as u64;
    let mapping = process.mappings.find(here).expect("our code is mapped");
    let MappingContent::Object { object, bias } = mapping.content else { panic!("it is an object") };
    assert_eq!(Some(object), image.executable_object);
    assert_eq!(Some(image.service()), image.executable.file_name().map(|name| name.to_string_lossy()));
    // The test binary's own symbol table is the oracle for the bias: its ELF address lies in text.
    let file = world.objects.get(object).and_then(|object| object.file.clone().ok()).expect("opened");
    let address = here.wrapping_sub(bias.0);
    let within = file.segments().iter().find(|segment| {
        segment.executable && (segment.address.0..segment.address.0 + segment.memory_bytes).contains(&address)
    });
    assert!(within.is_some(), "{address:#x} is no text address");
    assert!(world.objects.iter().any(|(_, object)| object.path == Path::new("[vdso]")));
}
