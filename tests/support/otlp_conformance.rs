//! The rules of OTLP's profiles data model that can be checked on a message alone
//! (opentelemetry/proto/profiles/v1development/profiles.proto, its comments), as a list of what a message
//! breaks. Knows the generated messages and nothing of spanflame.

use std::collections::HashSet;
use std::fmt::Debug;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::profiles::v1development as proto;
use prost::Message;

/// Every rule that the message breaks, in words; empty if it conforms.
pub fn violations(message: &proto::ProfilesData) -> Vec<String> {
    let Some(dictionary) = &message.dictionary else { return vec!["there is no dictionary".to_owned()] };
    let mut check = Check { dictionary, used: Used::default(), found: Vec::new() };
    check.tables();
    for resource_profiles in &message.resource_profiles {
        let resource = resource_profiles.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        check.plain_attributes("a resource", resource);
        for scope_profiles in &resource_profiles.scope_profiles {
            let scope = scope_profiles.scope.as_ref().map_or(&[][..], |scope| &scope.attributes);
            check.plain_attributes("a scope", scope);
            for profile in &scope_profiles.profiles {
                check.profile(profile);
            }
        }
    }
    check.reach_rows();
    check.orphans();
    check.found
}

/// What is referred to, by table.
#[derive(Default)]
struct Used {
    strings: HashSet<i32>,
    attributes: HashSet<i32>,
    links: HashSet<i32>,
    mappings: HashSet<i32>,
    functions: HashSet<i32>,
    locations: HashSet<i32>,
    stacks: HashSet<i32>,
}

struct Check<'a> {
    dictionary: &'a proto::ProfilesDictionary,
    used: Used,
    found: Vec<String>,
}

impl Check<'_> {
    fn fail(&mut self, what: String) {
        self.found.push(what);
    }

    fn tables(&mut self) {
        let dictionary = self.dictionary;
        self.table("mapping", &dictionary.mapping_table);
        self.table("location", &dictionary.location_table);
        self.table("function", &dictionary.function_table);
        self.table("link", &dictionary.link_table);
        self.table("attribute", &dictionary.attribute_table);
        self.table("stack", &dictionary.stack_table);
        if dictionary.string_table.first().is_none_or(|first| !first.is_empty()) {
            self.fail("the string table does not begin with the empty string".to_owned());
        }
        let mut seen = HashSet::new();
        for text in &dictionary.string_table {
            if !seen.insert(text) {
                self.fail(format!("the string {text:?} is there twice"));
            }
        }
        for (row, link) in dictionary.link_table.iter().enumerate().skip(1) {
            if link.trace_id.len() != 16 || link.span_id.len() != 8 {
                self.fail(format!(
                    "link {row} has ids of {} and {} bytes",
                    link.trace_id.len(),
                    link.span_id.len()
                ));
            }
            if link.trace_id.iter().all(|&byte| byte == 0) || link.span_id.iter().all(|&byte| byte == 0) {
                self.fail(format!("link {row} has an id of zeros"));
            }
        }
        for (row, mapping) in dictionary.mapping_table.iter().enumerate() {
            let none = mapping.memory_start == 0 && mapping.memory_limit == 0;
            if !none && mapping.memory_start >= mapping.memory_limit {
                self.fail(format!("mapping {row} ends before it begins"));
            }
        }
    }

    /// Begins with its zero value and holds nothing twice.
    fn table<T: Message + Default + PartialEq + Debug>(&mut self, name: &str, rows: &[T]) {
        if rows.first() != Some(&T::default()) {
            self.fail(format!("the {name} table does not begin with its zero value"));
        }
        let mut seen = HashSet::new();
        for (row, message) in rows.iter().enumerate() {
            if !seen.insert(message.encode_to_vec()) {
                self.fail(format!("{name} {row} is there twice: {message:?}"));
            }
        }
    }

    fn plain_attributes(&mut self, owner: &str, attributes: &[KeyValue]) {
        let mut keys = HashSet::new();
        for attribute in attributes {
            if attribute.key_strindex != 0 {
                self.fail(format!("{owner} has a key by reference, which receivers lose"));
            }
            if attribute.key.is_empty() {
                self.fail(format!("{owner} has an attribute without a name"));
            }
            if !keys.insert(&attribute.key) {
                self.fail(format!("{owner} has {} twice", attribute.key));
            }
        }
    }

    fn attributes(&mut self, owner: &str, indices: &[i32]) {
        let mut keys = HashSet::new();
        for &index in indices {
            if index == 0 {
                self.fail(format!("{owner} has attribute 0"));
            }
            let row =
                usize::try_from(index).ok().and_then(|index| self.dictionary.attribute_table.get(index));
            let Some(attribute) = row else {
                self.fail(format!("{owner}: attribute {index} is out of range"));
                continue;
            };
            self.used.attributes.insert(index);
            if attribute.key_strindex == 0 {
                self.fail(format!("{owner} has an attribute without a name"));
            }
            if !keys.insert(attribute.key_strindex) {
                self.fail(format!("{owner} has an attribute twice"));
            }
        }
    }

    fn index(&mut self, what: &str, index: i32, length: usize) {
        if usize::try_from(index).map_or(true, |index| index >= length) {
            self.fail(format!("{what} {index} is out of range, there are {length}"));
        }
    }

    fn string(&mut self, what: &str, index: i32) {
        self.index(what, index, self.dictionary.string_table.len());
        self.used.strings.insert(index);
    }

    fn value_type(&mut self, what: &str, value_type: Option<proto::ValueType>) {
        if let Some(value_type) = value_type {
            self.string(what, value_type.type_strindex);
            self.string(what, value_type.unit_strindex);
        }
    }

    fn profile(&mut self, profile: &proto::Profile) {
        self.value_type("sample type", profile.sample_type);
        self.value_type("period type", profile.period_type);
        self.attributes("a profile", &profile.attribute_indices);
        if !matches!(profile.profile_id.len(), 0 | 16) {
            self.fail(format!("a profile has an id of {} bytes", profile.profile_id.len()));
        }
        let end = profile.time_unix_nano.saturating_add(profile.duration_nano);
        let mut shapes = HashSet::new();
        let mut identities = HashSet::new();
        for sample in &profile.samples {
            let (values, timestamps) = (sample.values.len(), sample.timestamps_unix_nano.len());
            shapes.insert((values == 0, values == 1, timestamps == 0));
            let one_value = values == 1 && timestamps == 0;
            if !(one_value || timestamps > 0 && (values == 0 || values == timestamps)) {
                self.fail(format!("a sample has {values} values and {timestamps} timestamps"));
            }
            for &timestamp in &sample.timestamps_unix_nano {
                if timestamp < profile.time_unix_nano || timestamp >= end {
                    self.fail(format!("the timestamp {timestamp} lies outside of its profile"));
                }
            }
            self.index("stack", sample.stack_index, self.dictionary.stack_table.len());
            self.index("link", sample.link_index, self.dictionary.link_table.len());
            self.used.stacks.insert(sample.stack_index);
            self.used.links.insert(sample.link_index);
            self.attributes("a sample", &sample.attribute_indices);
            let mut attributes = sample.attribute_indices.clone();
            attributes.sort_unstable();
            if !identities.insert((sample.stack_index, attributes, sample.link_index)) {
                self.fail("two samples of a profile are equal in stack, attributes and link".to_owned());
            }
        }
        // With timestamps the number of values may differ from sample to sample.
        let with_timestamps: HashSet<_> = shapes.iter().map(|(none, _, without)| (*none, *without)).collect();
        if with_timestamps.len() > 1 {
            self.fail("the samples of a profile have several shapes".to_owned());
        }
    }

    /// Goes on from the samples' stacks to what those refer to, row by row in use.
    fn reach_rows(&mut self) {
        let dictionary = self.dictionary;
        // What nobody refers to is checked as well: it must at least be in range.
        for (row, stack) in dictionary.stack_table.iter().enumerate() {
            for &location in &stack.location_indices {
                self.index("location", location, dictionary.location_table.len());
                if location == 0 {
                    self.fail(format!("stack {row} refers to location 0"));
                }
                if self.used.stacks.contains(&(row as i32)) {
                    self.used.locations.insert(location);
                }
            }
        }
        for (row, location) in dictionary.location_table.iter().enumerate() {
            self.index("mapping", location.mapping_index, dictionary.mapping_table.len());
            let in_use = self.used.locations.contains(&(row as i32));
            if in_use {
                self.used.mappings.insert(location.mapping_index);
            }
            for line in &location.lines {
                self.index("function", line.function_index, dictionary.function_table.len());
                if in_use {
                    self.used.functions.insert(line.function_index);
                }
            }
            self.attributes(&format!("location {row}"), &location.attribute_indices);
        }
        for (row, mapping) in dictionary.mapping_table.iter().enumerate() {
            self.string("file name", mapping.filename_strindex);
            self.attributes(&format!("mapping {row}"), &mapping.attribute_indices);
        }
        for function in &dictionary.function_table {
            self.string("function name", function.name_strindex);
            self.string("system name", function.system_name_strindex);
            self.string("source file", function.filename_strindex);
        }
        for attribute in &dictionary.attribute_table {
            self.string("attribute key", attribute.key_strindex);
            self.string("attribute unit", attribute.unit_strindex);
        }
    }

    /// Rows, 0 excepted, that nobody refers to.
    fn orphans(&mut self) {
        let dictionary = self.dictionary;
        let tables = [
            ("string", dictionary.string_table.len(), &self.used.strings),
            ("attribute", dictionary.attribute_table.len(), &self.used.attributes),
            ("link", dictionary.link_table.len(), &self.used.links),
            ("mapping", dictionary.mapping_table.len(), &self.used.mappings),
            ("function", dictionary.function_table.len(), &self.used.functions),
            ("location", dictionary.location_table.len(), &self.used.locations),
            ("stack", dictionary.stack_table.len(), &self.used.stacks),
        ];
        let mut orphans = Vec::new();
        for (name, length, used) in tables {
            let unused = (1..length).filter(|&row| !used.contains(&(row as i32)));
            orphans.extend(unused.map(|row| format!("nobody refers to {name} {row}")));
        }
        self.found.extend(orphans);
    }
}
