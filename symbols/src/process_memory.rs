//! Memory of a process that runs, or a recorded image of such memory.

mod live;

pub use live::LiveMemory;

/// An address could not be read: nothing is mapped there, or the process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at process address {address:#x} cannot be read")]
pub struct Unreadable {
    /// Process address.
    pub address: u64,
    /// How many bytes were wanted.
    pub bytes: usize,
}

/// Something whose memory can be read. What is read may change between two calls, and may hold anything.
pub trait ProcessMemory {
    /// Fills `into` from a process address.
    ///
    /// # Errors
    /// [`Unreadable`] unless all of it can be read.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable>;

    /// A byte.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn u8_at(&self, address: u64) -> Result<u8, Unreadable> {
        let mut bytes = [0; 1];
        self.read(address, &mut bytes)?;
        Ok(u8::from_le_bytes(bytes))
    }

    /// A number of two bytes.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn u16_at(&self, address: u64) -> Result<u16, Unreadable> {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// A number of four bytes.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn u32_at(&self, address: u64) -> Result<u32, Unreadable> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A number of eight bytes, or a pointer.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn u64_at(&self, address: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Recorded memory.
#[derive(Debug, Clone, Default)]
pub struct RecordedMemory {
    regions: Vec<(u64, Vec<u8>)>,
}

impl RecordedMemory {
    /// Adds a region.
    pub fn add(&mut self, begin: u64, contents: Vec<u8>) {
        self.regions.push((begin, contents));
    }

    /// The regions: begin and contents.
    #[must_use]
    pub fn regions(&self) -> &[(u64, Vec<u8>)] {
        &self.regions
    }
}

impl ProcessMemory for RecordedMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = Unreadable { address, bytes: into.len() };
        let found = self.regions.iter().find_map(|(begin, contents)| {
            let offset = usize::try_from(address.checked_sub(*begin)?).ok()?;
            contents.get(offset..offset.checked_add(into.len())?)
        });
        into.copy_from_slice(found.ok_or(unreadable)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_memory_ends_where_it_ends() {
        let mut memory = RecordedMemory::default();
        memory.add(0x1000, vec![1, 2, 3, 4]);
        memory.add(u64::MAX - 1, vec![5, 6]);
        assert_eq!(memory.u16_at(0x1002), Ok(0x0403));
        assert!(memory.u16_at(0x1003).is_err(), "across the end");
        assert!(memory.u8_at(0xfff).is_err());
        assert_eq!(memory.u8_at(u64::MAX), Ok(6));
        assert!(memory.u32_at(u64::MAX - 1).is_err(), "past the last address");
    }
}
