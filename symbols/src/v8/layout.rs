//! Where V8 keeps what: of each version that was verified, by its own constants for debuggers (`v8dbg_*`, which
//! tools/gen-postmortem-metadata.py makes out of V8's sources) where it has them, else from tables.
//!
//! Offsets are counted from an object's first byte. Numbers of versions are V8's: Node 18 has V8 10.2, Node 20
//! 11.3, Node 22 12.4, Node 24 13.6.

use std::collections::HashMap;

/// Of one V8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub version: (u32, u32),

    pub map_instance_type: u64,
    pub type_shared: u16,
    pub type_script: u16,
    pub type_debug_info: u16,
    pub type_scope_info: u16,
    pub type_bytecode_array: u16,
    /// Of the object that describes code; in V8 10 it holds the instructions too.
    pub type_code: u16,
    /// Of the object that holds instructions.
    pub type_instructions: u16,
    pub type_interpreter_data: u16,
    pub type_fixed_array: u16,
    pub type_shared_wrapper: Option<u16>,
    /// Of arrays of bytes, in the heap and in that part of it which is trusted.
    pub types_bytes: [u16; 2],
    /// The four types of data of functions that were not compiled yet, or whose bytecode was thrown away.
    pub types_uncompiled: [u16; 4],

    pub function_shared: u64,

    pub shared_data: u64,
    pub shared_name: u64,
    pub shared_script: u64,
    pub shared_literal: u64,
    /// 0: there is none.
    pub shared_unique: u64,

    pub script_source: u64,
    pub script_name: u64,
    pub script_line_offset: u64,
    pub script_line_ends: u64,
    pub script_id: u64,
    pub debug_info_script: u64,

    pub scope_module: u32,
    /// Whether all scopes have their positions, before their variables' names.
    pub scope_positions_first: bool,

    pub uncompiled_inferred_name: u64,
    pub uncompiled_start: u64,

    pub bytecode_length: u64,
    pub bytecode_positions: u64,
    pub bytecode_data: u64,

    pub code_deoptimization: u64,
    pub code_positions: u64,
    pub code_flags: u64,
    pub code_size: u64,
    /// Where a pointer to the first instruction is; in V8 10 the instruction itself.
    pub code_start: u64,
    /// Instructions: the code they are of; in V8 10 that is the same.
    pub instructions_code: Option<u64>,
    pub kind_baseline: u32,
    pub kind_interpreted: u32,

    pub deoptimization_literals: u64,
    pub deoptimization_shared: u64,
    pub deoptimization_inlining: u64,
}

/// Bits of code's flags that tell its kind, in all versions.
pub(super) const CODE_KIND_MASK: u32 = 15;

impl Layout {
    /// The layout of a version, with the constants of the object.
    ///
    /// # Errors
    /// What is not as this can read it.
    pub(super) fn new(version: (u32, u32), constants: &HashMap<String, i32>) -> Result<Self, String> {
        for (name, expected) in
            [("HeapObjectTag", 1), ("HeapObjectTagMask", 3), ("SmiTagMask", 1), ("SmiShiftSize", 31)]
        {
            match constants.get(name) {
                Some(found) if *found == expected => {}
                Some(_) => return Err(format!("its pointers are compressed, or tagged otherwise ({name})")),
                None => return Err(format!("it does not have v8dbg_{name}")),
            }
        }
        let mut layout = Self::of_version(version).ok_or_else(|| "its layout is not known".to_owned())?;
        layout.take(constants)?;
        Ok(layout)
    }

    /// The layout of a version as it was verified; `None` if none was.
    pub(super) fn of_version(version: (u32, u32)) -> Option<Self> {
        [V8_10_2, V8_11_3, V8_12_4, V8_13_6].into_iter().find(|layout| layout.version == version)
    }

    fn take(&mut self, constants: &HashMap<String, i32>) -> Result<(), String> {
        let types: [(&mut u16, &str); 9] = [
            (&mut self.type_shared, "type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE"),
            (&mut self.type_script, "type_Script__SCRIPT_TYPE"),
            (&mut self.type_debug_info, "type_DebugInfo__DEBUG_INFO_TYPE"),
            (&mut self.type_scope_info, "type_ScopeInfo__SCOPE_INFO_TYPE"),
            (&mut self.type_bytecode_array, "type_BytecodeArray__BYTECODE_ARRAY_TYPE"),
            (&mut self.type_code, "type_Code__CODE_TYPE"),
            (&mut self.type_interpreter_data, "type_InterpreterData__INTERPRETER_DATA_TYPE"),
            (&mut self.type_fixed_array, "type_FixedArray__FIXED_ARRAY_TYPE"),
            (&mut self.type_instructions, "type_InstructionStream__INSTRUCTION_STREAM_TYPE"),
        ];
        for (field, name) in types {
            if let Some(value) = constants.get(name) {
                *field = u16::try_from(*value).map_err(|_| format!("v8dbg_{name} is {value}"))?;
            }
        }
        if self.version == (10, 2) {
            self.type_instructions = self.type_code;
        }
        let offsets: [(&mut u64, &[&str]); 13] = [
            (&mut self.map_instance_type, &["class_Map__instance_type__uint16_t"]),
            (&mut self.function_shared, &["class_JSFunction__shared__SharedFunctionInfo"]),
            (&mut self.shared_data, &["class_SharedFunctionInfo__function_data__Object"]),
            (
                &mut self.shared_name,
                &[
                    "class_SharedFunctionInfo__name_or_scope_info__Object",
                    "class_SharedFunctionInfo__name_or_scope_info__Tagged_Object_",
                    "class_SharedFunctionInfo__name_or_scope_info__Tagged_NameOrScopeInfoT_",
                ],
            ),
            (
                &mut self.shared_script,
                &[
                    "class_SharedFunctionInfo__script_or_debug_info__HeapObject",
                    "class_SharedFunctionInfo__script__Tagged_HeapObject_",
                ],
            ),
            (&mut self.script_source, &["class_Script__source__Object"]),
            (&mut self.script_name, &["class_Script__name__Object"]),
            (&mut self.script_line_ends, &["class_Script__line_ends__Object"]),
            (&mut self.uncompiled_inferred_name, &["class_UncompiledData__inferred_name__String"]),
            (&mut self.uncompiled_start, &["class_UncompiledData__start_position__int32_t"]),
            (&mut self.bytecode_data, &["class_BytecodeArray__data__uintptr_t"]),
            (&mut self.code_flags, &["class_Code__flags__uint32_t"]),
            (&mut self.code_size, &["class_Code__instruction_size__int"]),
        ];
        for (field, names) in offsets {
            for name in names {
                if let Some(value) = constants.get(*name) {
                    let offset = u64::try_from(*value).ok().filter(|offset| (4..=120).contains(offset));
                    *field = offset.ok_or_else(|| format!("v8dbg_{name} is {value}"))?;
                }
            }
        }
        Ok(())
    }
}

const V8_10_2: Layout = Layout {
    version: (10, 2),
    map_instance_type: 12,
    type_shared: 257,
    type_script: 170,
    type_debug_info: 156,
    type_scope_info: 256,
    type_bytecode_array: 195,
    type_code: 240,
    type_instructions: 240,
    type_interpreter_data: 162,
    type_fixed_array: 179,
    type_shared_wrapper: None,
    types_bytes: [194, 194],
    types_uncompiled: [217, 218, 219, 220],
    function_shared: 24,
    shared_data: 8,
    shared_name: 16,
    shared_script: 32,
    shared_literal: 52,
    shared_unique: 0,
    script_source: 8,
    script_name: 16,
    script_line_offset: 24,
    script_line_ends: 56,
    script_id: 64,
    debug_info_script: 24,
    scope_module: 3,
    scope_positions_first: false,
    uncompiled_inferred_name: 8,
    uncompiled_start: 16,
    bytecode_length: 8,
    bytecode_positions: 32,
    bytecode_data: 56,
    code_deoptimization: 16,
    code_positions: 24,
    code_flags: 48,
    code_size: 40,
    code_start: 128,
    instructions_code: None,
    kind_baseline: 11,
    kind_interpreted: 10,
    deoptimization_literals: 2,
    deoptimization_shared: 6,
    deoptimization_inlining: 7,
};

const V8_11_3: Layout = Layout {
    version: (11, 3),
    type_shared: 262,
    type_script: 167,
    type_debug_info: 153,
    type_scope_info: 261,
    type_bytecode_array: 191,
    type_code: 245,
    type_instructions: 252,
    type_interpreter_data: 159,
    type_fixed_array: 175,
    types_bytes: [190, 190],
    types_uncompiled: [220, 221, 222, 223],
    bytecode_data: 54,
    code_size: 56,
    code_start: 40,
    instructions_code: Some(8),
    ..V8_10_2
};

const V8_12_4: Layout = Layout {
    version: (12, 4),
    type_shared: 274,
    type_debug_info: 154,
    type_scope_info: 272,
    type_bytecode_array: 205,
    type_code: 206,
    type_instructions: 210,
    type_interpreter_data: 207,
    type_fixed_array: 174,
    types_bytes: [186, 212],
    types_uncompiled: [200, 201, 202, 203],
    function_shared: 32,
    shared_unique: 56,
    bytecode_positions: 24,
    bytecode_data: 64,
    code_deoptimization: 8,
    code_positions: 16,
    code_flags: 48,
    code_size: 52,
    kind_baseline: 10,
    kind_interpreted: 9,
    ..V8_11_3
};

const V8_13_6: Layout = Layout {
    version: (13, 6),
    type_shared: 282,
    type_scope_info: 280,
    type_bytecode_array: 186,
    type_code: 187,
    type_instructions: 192,
    type_interpreter_data: 188,
    type_fixed_array: 205,
    type_shared_wrapper: Some(195),
    types_bytes: [217, 196],
    types_uncompiled: [175, 176, 177, 178],
    shared_name: 24,
    shared_script: 40,
    shared_literal: 60,
    shared_unique: 64,
    scope_module: 5,
    scope_positions_first: true,
    code_flags: 52,
    code_size: 56,
    deoptimization_literals: 3,
    deoptimization_shared: 7,
    deoptimization_inlining: 8,
    ..V8_12_4
};
