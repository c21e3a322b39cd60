//! Values of keys from text, for others: flags of the command line, tests.

use std::str::FromStr;

use super::address::{Endpoint, ListenAddress};
use super::name::{Directory, HostName, MetricPrefix, PathPattern, UrlPath, WebOrigin};
use super::number::{ByteSize, Period, Ratio};
use super::secret::{Headers, Secret};
use super::value::KeyType;

macro_rules! from_text {
    ($($type:ty),*) => { $(
        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::from_text(text)
            }
        }
    )* };
}

from_text!(
    Endpoint,
    ListenAddress,
    Directory,
    HostName,
    MetricPrefix,
    PathPattern,
    UrlPath,
    WebOrigin,
    Ratio
);
from_text!(Secret, Headers);

impl<const MIN_S: u64, const MAX_S: u64> FromStr for Period<MIN_S, MAX_S> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for ByteSize<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}
