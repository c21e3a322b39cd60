//! Where requests go and how, made once for each configuration.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::answer::{Answer, Failure};
use super::signal::Signal;
use super::{grpc, http as over_http};
use crate::config::{Compression, Otlp, Protocol, Scheme};

/// Why an endpoint cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is no URL, although the configuration has read it as one.
    #[error("otlp.endpoint: {endpoint} cannot be used: {reason}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// A header that cannot be sent. Its value is not told.
    #[error("otlp.headers: {name} cannot be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// There is nothing that a server's certificate could be compared with.
    #[error("otlp.endpoint: TLS cannot be spoken: {reason}; see the package ca-certificates")]
    Tls {
        /// Why not.
        reason: String,
    },
}

/// See the module's description.
pub(super) struct Target {
    /// Of this it was made.
    configuration: Otlp,
    /// As it is shown.
    pub(super) endpoint: String,
    /// Without the brackets of IPv6.
    pub(super) host: String,
    pub(super) port: u16,
    transport: Transport,
}

enum Transport {
    Grpc(grpc::Client),
    Http(Box<over_http::Client>),
}

/// What both transports are told.
pub(super) struct Manner {
    /// `http://host:port` or `https://…`, with the configured path and no final slash.
    pub(super) url: String,
    pub(super) tls: bool,
    pub(super) gzip: bool,
    pub(super) timeout: Duration,
    pub(super) headers: HeaderMap,
}

impl Target {
    /// `None` if nothing is to be exported.
    pub(super) fn of(configuration: &Otlp) -> Result<Option<Self>, TargetError> {
        let Some(endpoint) = &configuration.endpoint else { return Ok(None) };
        let tls = configuration.uses_tls();
        let default_port = match endpoint.scheme {
            Some(Scheme::Http) => 80,
            Some(Scheme::Https) | None => 443,
        };
        let port = endpoint.port.unwrap_or(default_port);
        let scheme = if tls { "https" } else { "http" };
        let mut headers = HeaderMap::new();
        for (name, value) in configuration.headers.iter() {
            let refused = || TargetError::Header { name: name.to_owned() };
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
            let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| refused())?;
            // Neither shown by Debug nor kept by HTTP/2's compression.
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let manner = Manner {
            url: format!("{scheme}://{}:{port}{}", endpoint.host, endpoint.path),
            tls,
            gzip: configuration.compression == Compression::Gzip,
            timeout: configuration.timeout.get(),
            headers,
        };
        let transport = match configuration.protocol {
            Protocol::Grpc => Transport::Grpc(grpc::Client::new(&manner)?),
            Protocol::HttpProtobuf => {
                Transport::Http(Box::new(over_http::Client::new(manner, over_http::Encoding::Protobuf)?))
            }
            Protocol::HttpJson => {
                Transport::Http(Box::new(over_http::Client::new(manner, over_http::Encoding::Json)?))
            }
        };
        Ok(Some(Self {
            configuration: configuration.clone(),
            endpoint: endpoint.to_string(),
            host: endpoint.host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            transport,
        }))
    }

    pub(super) fn is_of(&self, configuration: &Otlp) -> bool {
        self.configuration == *configuration
    }

    pub(super) fn configuration(&self) -> &Otlp {
        &self.configuration
    }

    /// Whether the signal is exported.
    pub(super) fn wants(&self, signal: Signal) -> bool {
        match signal {
            Signal::Profiles => self.configuration.profiles.enabled,
            Signal::Metrics => self.configuration.metrics.enabled,
            Signal::Traces => self.configuration.traces.enabled,
        }
    }

    /// Sends one encoded request and waits for the answer, at most the configured time.
    pub(super) async fn send(&self, signal: Signal, message: bytes::Bytes) -> Result<Answer, Failure> {
        let answer = async {
            match &self.transport {
                Transport::Grpc(client) => client.send(signal, message).await,
                Transport::Http(client) => client.send(signal, message).await,
            }
        };
        let limit = self.configuration.timeout.get();
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(Failure::transient(format!("no answer within {limit:?}"))))
    }
}
