//! A server's certificate that is not trusted: what is wrong with it, and what to do.

use std::path::Path;

/// What the TLS library says, and the advice that goes with it. The library says it in one word, such as
/// `UnknownIssuer`.
const KNOWN: [(&[&str], &str); 6] = [
    (
        &["unknownissuer", "badsignature"],
        "write the PEM file of the authority that signed the server's certificate into source.tls_ca_file; of a certificate that \
         signed itself, the certificate",
    ),
    (
        &["causedasendentity"],
        "the server shows the certificate of an authority (CA:TRUE, as openssl req -x509 makes it), which is no server's: make one with \
         -addext basicConstraints=critical,CA:FALSE, or let the authority sign one for the server",
    ),
    (
        &["unsupportedcertversion"],
        "the server shows a certificate of X.509 version 1, as it makes for itself: give it one of version 3 with its name in \
         subjectAltName",
    ),
    (&["notvalidfor"], "source.host must be a name or address in subjectAltName of the server's certificate"),
    (&["certificateexpired", "peercertificate:expired"], "renew the server's certificate, or set this machine's clock"),
    (&["notvalidyet"], "set this machine's clock, or wait until the server's certificate is valid"),
];

/// How the driver says that a file of authorities holds none.
const NO_AUTHORITY: [&str; 4] =
    ["nousablecertificates", "failedtoparsepem", "containsaninvalidcertificate", "nocertificate"];

/// What is wrong, with the file that was asked and the next step; `None` if the message is of something else.
/// `ca_file` is `source.tls_ca_file`.
pub fn explained(message: &str, ca_file: Option<&Path>) -> Option<String> {
    let folded: String = message.to_lowercase().chars().filter(|one| !matches!(one, ' ' | '_')).collect();
    if let Some(file) = ca_file.filter(|_| NO_AUTHORITY.iter().any(|word| folded.contains(word))) {
        return Some(format!(
            "source.tls_ca_file: must be a PEM file that holds a certificate (BEGIN CERTIFICATE), got {}",
            file.display()
        ));
    }
    let (_, advice) = KNOWN.iter().find(|(words, _)| words.iter().any(|word| folded.contains(word)))?;
    let asked = ca_file.map_or("the authorities of this system".to_owned(), |file| file.display().to_string());
    Some(format!(
        "source.tls: {message} (checked against {asked}): {advice}. tls = \"require\" encrypts and checks no certificate"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_says_in_a_word_is_told_with_the_file_and_the_next_step() {
        let file = Path::new("/etc/pos-ca.pem");
        let cases = [
            ("invalid peer certificate: UnknownIssuer", "the PEM file of the authority"),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "basicConstraints=critical,CA:FALSE"),
            ("invalid peer certificate: Other(OtherError(UnsupportedCertVersion))", "version 3"),
            (
                "certificate not valid for name \"caja1\"; certificate is only valid for DnsName(\"pos\")",
                "subjectAltName",
            ),
            ("certificate not valid for any names", "subjectAltName"),
            ("invalid peer certificate: certificate expired: verification time 3 (UNIX)", "renew"),
            ("invalid peer certificate: certificate not valid yet: verification time 3", "clock"),
        ];
        for (message, step) in cases {
            let told = explained(message, Some(file)).unwrap_or_default();
            assert!(told.contains(step) && told.contains("/etc/pos-ca.pem") && told.contains(message), "{told}");
            let told = explained(message, None).unwrap_or_default();
            assert!(told.contains("authorities of this system"), "{told}");
        }
        assert_eq!(explained("connection reset by peer", Some(file)), None);
    }
}
