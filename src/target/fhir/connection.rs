//! The way to a server: proxy, TLS, time limits, and the pool of connections. Certificate files that change are read again for new connections.

use crate::credential::{FileMark, HeldSecret, Looked, read_file};
use crate::target::{HttpConfig, Proxy, SecretSource, TargetError, Tls, TlsVersion};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method, RequestBuilder};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Connecting never takes longer than this, unless the site says so.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// A pool of connections to one server, and its token server.
pub(crate) struct Connection {
    settings: Settings,
    current: Mutex<Current>,
}

struct Settings {
    tls: Tls,
    proxy: Proxy,
    login: Option<HeldSecret>,
    timeout: Duration,
    connect_timeout: Duration,
}

struct Current {
    client: Client,
    marks: Vec<Option<FileMark>>,
    looked: Looked,
}

impl Connection {
    /// Reads the certificates and prepares the pool; connects to nothing.
    pub(crate) fn open(config: &HttpConfig) -> Result<Self, TargetError> {
        let login = match &config.proxy {
            Proxy::Url { login: Some((_, password)), .. } => Some(HeldSecret::open(password.clone()).map_err(TargetError::Setting)?),
            _ => None,
        };
        let settings = Settings {
            tls: config.tls.clone(),
            proxy: config.proxy.clone(),
            login,
            timeout: config.timeout,
            connect_timeout: config.connect_timeout.unwrap_or_else(|| CONNECT_WAIT_MAX.min(config.timeout / 3)),
        };
        let marks = settings.marks();
        let client = settings.client().map_err(TargetError::Setting)?;
        Ok(Self { settings, current: Mutex::new(Current { client, marks, looked: Looked::now() }) })
    }

    pub(crate) fn get(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.client().get(url)
    }

    pub(crate) fn post(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.client().post(url)
    }

    pub(crate) fn request(&self, method: Method, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.client().request(method, url)
    }

    /// The pool to use now. Requests that are under way end on the pool that they began with.
    fn client(&self) -> Client {
        let mut current = self.current();
        if !self.settings.tls.files().is_empty() && current.looked.is_due() {
            self.renew(&mut current);
        }
        current.client.clone()
    }

    /// After a handshake that failed: a certificate that has been renewed on the disk is taken at once.
    pub(crate) fn look_again(&self) {
        self.renew(&mut self.current());
    }

    fn renew(&self, current: &mut Current) {
        let marks = self.settings.marks();
        if marks == current.marks {
            return;
        }
        // Also where it fails: files that are half written change again, and are looked at again then.
        current.marks = marks;
        match self.settings.client() {
            Ok(client) => {
                tracing::info!("certificates of a target have changed; new connections use them");
                current.client = client;
            }
            Err(what) => tracing::warn!("{what}; the last certificates that could be read are used"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // Each field is whole whatever happened to a holder.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    fn marks(&self) -> Vec<Option<FileMark>> {
        self.tls.files().into_iter().map(FileMark::of).collect()
    }

    fn client(&self) -> Result<Client, String> {
        let builder = Client::builder()
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")));
        let builder = match &self.proxy {
            Proxy::Environment => builder,
            Proxy::None => builder.no_proxy(),
            Proxy::Url { url, login } => {
                let mut proxy = reqwest::Proxy::all(url).map_err(|_| format!("the proxy's address {url} cannot be used"))?;
                if let (Some((user, _)), Some(password)) = (login, &self.login) {
                    proxy = proxy.basic_auth(user, password.current().expose());
                }
                builder.proxy(proxy)
            }
        };
        let client = self.tls.apply(builder)?.build();
        // Its own words do not name the file; what can be wrong here is a key that does not fit its certificate.
        client.map_err(|e| match &self.tls.identity {
            Some((certificate, key)) if e.is_builder() => {
                format!("the certificate {} and the key {} do not belong together, or are of a kind that TLS cannot use", certificate.display(), key.display())
            }
            _ => "the HTTP client cannot be made".to_owned(),
        })
    }
}

impl Tls {
    /// Reads and checks the files without connecting.
    ///
    /// # Errors
    /// A sentence that names the file and says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let config = HttpConfig { tls: self.clone(), ..HttpConfig::new("https://localhost") };
        Connection::open(&config).map(|_| ()).map_err(|e| e.to_string())
    }

    /// All files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate.as_path(), key.as_path()]);
        self.ca.as_deref().into_iter().chain(identity).collect()
    }

    fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, String> {
        if let Some(path) = &self.ca {
            let text = read_file(path)?;
            let fault = |what: &str| format!("the file {} {what}; it takes PEM certificates, `-----BEGIN CERTIFICATE-----`", path.display());
            let certificates = Certificate::from_pem_bundle(text.as_bytes()).map_err(|_| fault("cannot be read as certificates"))?;
            if certificates.is_empty() {
                return Err(fault("holds no certificate"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = &self.identity {
            let (chain, private) = (read_file(certificate)?, read_file(key)?);
            let both = SecretPem(format!("{chain}\n{private}"));
            let identity = Identity::from_pem(both.0.as_bytes())
                .map_err(|_| format!("{} holds no PEM certificate, or {} no PEM private key without a passphrase", certificate.display(), key.display()))?;
            builder = builder.identity(identity);
        }
        Ok(builder.tls_version_min(match self.minimum {
            TlsVersion::V12 => reqwest::tls::Version::TLS_1_2,
            TlsVersion::V13 => reqwest::tls::Version::TLS_1_3,
        }))
    }
}

/// A private key in memory, for the one call that takes it.
struct SecretPem(String);

impl Proxy {
    /// The secret that it needs, if any.
    pub fn secret(&self) -> Option<&SecretSource> {
        match self {
            Self::Url { login: Some((_, password)), .. } => Some(password),
            _ => None,
        }
    }
}
