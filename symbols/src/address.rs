//! Three numbers that look alike and are not: each has its own type.

use std::fmt;

macro_rules! address {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:#x}", self.0)
            }
        }

        impl $name {
            /// This number plus `bytes`, or `None` past the end of 64 bits.
            #[must_use]
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }

            /// Bytes from `start` to here, or `None` if `start` is greater.
            #[must_use]
            pub fn checked_sub(self, start: Self) -> Option<u64> {
                self.0.checked_sub(start.0)
            }
        }
    };
}

address! {
    /// A position in a file, in bytes from its start.
    FileOffset
}
address! {
    /// A virtual address as the linker wrote it into the ELF file (`p_vaddr`, `st_value`, DWARF).
    ElfAddress
}
address! {
    /// A virtual address in a running process.
    ProcessAddress
}

/// What is added to an ELF address of an object to get the process address where it is mapped.
/// Wraps, as a prelinked object may be loaded below its link address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Bias(pub u64);

impl Bias {
    /// The bias of a mapping whose first byte is `mapped` in the process and `linked` in the file.
    #[must_use]
    pub fn between(mapped: ProcessAddress, linked: ElfAddress) -> Self {
        Self(mapped.0.wrapping_sub(linked.0))
    }

    /// Where an ELF address is in the process.
    #[must_use]
    pub fn to_process(self, address: ElfAddress) -> ProcessAddress {
        ProcessAddress(address.0.wrapping_add(self.0))
    }

    /// Which ELF address a process address is.
    #[must_use]
    pub fn to_elf(self, address: ProcessAddress) -> ElfAddress {
        ElfAddress(address.0.wrapping_sub(self.0))
    }
}
