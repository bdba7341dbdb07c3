//! Addresses: which may be spoken to, where a redirect leads, how a path is written. A wrapper of `http`'s `Uri`.

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// An absolute http or https address. Plain http is for this machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url(Uri);

impl Url {
    /// Parses an address and refuses those that must not be spoken to.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("not an address ({error})"))?;
        let Some(authority) = uri.authority() else { return Err("not an address with a scheme and a host".into()) };
        if authority.as_str().contains('@') {
            return Err("a name or a password in an address is not accepted; set HF_TOKEN".into());
        }
        let url = Self(uri);
        match url.0.scheme_str() {
            Some("https") => Ok(url),
            Some("http") if url.is_loopback() => Ok(url),
            Some("http") => Err(format!(
                "http://{} is not encrypted, which is accepted on this machine only (127.0.0.1); use https",
                url.host()
            )),
            _ => Err("neither https nor http".into()),
        }
    }

    /// Where a `Location` leads. A page on the network never leads to plain http, not even to this machine's.
    pub(super) fn join(&self, location: &str) -> Result<Self, String> {
        let origin = format!("{}://{}", self.0.scheme_str().unwrap_or("https"), self.authority());
        let scheme_end = location.find(':').unwrap_or(usize::MAX);
        let next = if location.find(['/', '?', '#']).unwrap_or(usize::MAX) > scheme_end {
            Self::parse(location)?
        } else if location.starts_with("//") {
            Self::parse(&format!("{}:{location}", self.0.scheme_str().unwrap_or("https")))?
        } else if location.starts_with('/') {
            Self::parse(&format!("{origin}{location}"))?
        } else {
            let folder = self.0.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            Self::parse(&format!("{origin}{folder}/{location}"))?
        };
        if next.0.scheme() == Some(&Scheme::HTTP) && !(self.0.scheme() == Some(&Scheme::HTTP)) {
            return Err(format!("from https to http://{}", next.host()));
        }
        Ok(next)
    }

    /// The address below this one.
    pub(super) fn below(&self, path: &str) -> Result<Self, String> {
        Self::parse(&format!("{}/{path}", self.0.to_string().trim_end_matches('/')))
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(super) fn host(&self) -> &str {
        self.0.host().unwrap_or("")
    }

    fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether it is this machine, by name or number. Names are not resolved.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Same scheme, host and port: who may see the token.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        let port = |url: &Self| url.0.port_u16().unwrap_or(if url.is_https() { 443 } else { 80 });
        self.0.scheme() == other.0.scheme()
            && self.host().eq_ignore_ascii_case(other.host())
            && port(self) == port(other)
    }

    /// For messages: without the query, which may be a signature.
    pub(super) fn shown(&self) -> String {
        format!("{}://{}{}", self.0.scheme_str().unwrap_or(""), self.authority(), self.0.path())
    }
}

/// Percent-encodes all but letters, digits and `-._~`, and the slash where it separates.
pub(super) fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in [
            "https://huggingface.co",
            "https://mirror.example/path/",
            "http://127.0.0.1:80/a",
            "http://localhost:9",
            "http://[::1]:9",
        ] {
            assert!(Url::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://huggingface.co",
            "http://127.0.0.1.example.org",
            "http://localhost.example",
            "ftp://huggingface.co",
            "file:///etc/passwd",
            "huggingface.co",
            "/x",
            "",
            "https://me:secret@huggingface.co",
            "http://127.0.0.1@example.org/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redirects_lead_where_they_say_but_never_down() {
        let page = Url::parse("https://hub.example:8443/a/b?c=d").unwrap();
        for (location, want) in [
            ("/x/y?z", "https://hub.example:8443/x/y?z"),
            ("x:y/z", "error"),
            ("x", "https://hub.example:8443/a/x"),
            ("//cdn.example/f", "https://cdn.example/f"),
            ("https://cdn.example/f?sig=1:2", "https://cdn.example/f?sig=1:2"),
            ("/f?u=http://x", "https://hub.example:8443/f?u=http://x"),
            ("http://cdn.example/f", "error"),
            ("http://127.0.0.1/f", "error"),
            ("gopher://x", "error"),
        ] {
            let got = page.join(location).map_or_else(|_| "error".to_owned(), |url| url.0.to_string());
            assert_eq!(got, want, "{location}");
        }
        let local = Url::parse("http://127.0.0.1:1/a").unwrap();
        assert!(local.join("http://127.0.0.1:2/b").is_ok() && local.join("https://cdn.example").is_ok());
        assert!(local.join("http://10.0.0.1/b").is_err());
    }

    #[test]
    fn the_token_is_for_one_origin() {
        let hub = Url::parse("https://hub.example").unwrap();
        for (other, same) in [
            ("https://HUB.example:443/x", true),
            ("https://hub.example:8443", false),
            ("https://cdn.hub.example", false),
            ("https://hub.example.org", false),
        ] {
            assert_eq!(hub.same_origin(&Url::parse(other).unwrap()), same, "{other}");
        }
        assert_eq!(Url::parse("https://h/a?signature=x").unwrap().shown(), "https://h/a");
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü?.bin", true), "a%20b/%C3%BC%3F.bin");
    }
}
