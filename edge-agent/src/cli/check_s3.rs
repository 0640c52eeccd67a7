//! `ribera-agent check` for a bucket: each step on the way to it, and the next step in words where one
//! fails.

use std::time::Duration;

use ribera_storage::object::S3Store;
use ribera_storage::object::s3::{Cause, failure_of};
use ribera_storage::{Error, ObjectStore};

use super::Lang;
use super::check::{Checked, bad, good};
use crate::config::S3Config;
use crate::report::Stage;
use crate::source::reach::{self, Cause as Way, Reach};

/// Name and port, TLS, credentials. False when there is no use in going on.
pub async fn way(config: &S3Config, store: &S3Store, lang: Lang, timeout: Duration, lines: &mut Vec<Checked>) -> bool {
    if let Some(line) = network(config, lang, timeout).await {
        let goes_on = line.ok;
        lines.push(line);
        if !goes_on {
            return false;
        }
    }
    let asked = store.list("control/", None, 1).await;
    let cause = asked.as_ref().err().and_then(failure_of).map(|failure| failure.cause);
    if matches!(cause, Some(Cause::Certificate | Cause::CertificateTime)) {
        lines.extend(asked.err().map(|error| failed("object_store_tls", &error, lang)));
        return false;
    }
    // Whoever answers to a signature was reached, and trusted.
    let connected = asked.is_ok() || failure_of_answer(asked.as_ref().err());
    if connected {
        lines.push(if config.is_encrypted() {
            good("object_store_tls", None, lang.pick("certificado válido", "certificate trusted").to_owned())
        } else {
            let warning = lang.pick(
                "sin cifrar: use https salvo en la misma máquina",
                "in the clear: use https but on the same machine",
            );
            Checked { warning: Some(warning.to_owned()), ..good("object_store_tls", None, config.endpoint.clone()) }
        });
    }
    match asked {
        Ok(_) => {
            let detail = format!("{} {}", lang.pick("clave", "key"), config.access_key_id);
            lines.push(good("object_store_login", None, detail));
            true
        }
        Err(error) => {
            lines.push(failed("object_store_login", &error, lang));
            false
        }
    }
}

/// A failure with its next step instead of the program's own words.
pub fn failed(what: &str, error: &Error, lang: Lang) -> Checked {
    let Some(failure) = failure_of(error) else { return bad(what, None, Stage::Upload, error) };
    let (es, en) = next_step(failure.cause);
    let told = Error::new(error.kind(), format!("{}: {failure}", lang.pick(es, en)));
    bad(what, None, Stage::Upload, &told)
}

fn failure_of_answer(error: Option<&Error>) -> bool {
    error.and_then(failure_of).is_some_and(|failure| failure.status.is_some() && failure.cause != Cause::Portal)
}

/// Where this program connects itself. Nothing where that is left to the environment.
async fn network(config: &S3Config, lang: Lang, timeout: Duration) -> Option<Checked> {
    let named = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    if config.proxy.is_none() && named.iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    let (host, port) = config.first_stop()?;
    let reached = reach::reach(&host, Some(port), timeout).await;
    let place = format!("{host}:{port}{}", if config.proxy.is_some() { " (proxy)" } else { "" });
    let told = format!("{place}: {}", steps(&reached));
    Some(match reached.cause {
        None => good("object_store_network", None, told),
        Some(way) => {
            let (es, en) = way_step(way);
            bad("object_store_network", None, Stage::Upload, &Error::retry(format!("{told}: {}", lang.pick(es, en))))
        }
    })
}

fn steps(reached: &Reach) -> String {
    let took = |what: &str, took: Option<f64>| took.map_or(format!("{what} -"), |took| format!("{what} {took} ms"));
    [took("DNS", reached.lookup_ms), took("ping", reached.ping_ms), took("TCP", reached.port_ms)].join(", ")
}

fn way_step(way: Way) -> (&'static str, &'static str) {
    match way {
        Way::NameUnknown => (
            "el nombre no existe en el DNS: revise s3.endpoint, el proxy o el DNS de esta red",
            "the name is not in the DNS: check s3.endpoint, the proxy, or this network's DNS",
        ),
        Way::NoAnswer => (
            "no responde: revise la línea; si la red obliga a usar un proxy, indíquelo en s3.proxy",
            "no answer: check the line; where the network demands a proxy, name it in s3.proxy",
        ),
        Way::PortRefused => (
            "nadie escucha en ese puerto: revise el puerto de s3.endpoint o del proxy",
            "no service listens on that port: check the port of s3.endpoint or of the proxy",
        ),
        Way::PortSilent => (
            "la máquina responde y el puerto no: abra la salida a ese puerto en el cortafuegos",
            "the machine answers, the port does not: let this port out through the firewall",
        ),
        // Of databases alone.
        Way::BrowserSilent | Way::InstanceWithoutTcp => way.next_step(),
    }
}

fn next_step(cause: Cause) -> (&'static str, &'static str) {
    match cause {
        Cause::NameUnknown => way_step(Way::NameUnknown),
        Cause::NoConnection | Cause::Stalled => (
            "la conexión se corta o calla: revise la línea; se reintenta sola",
            "the connection breaks or falls silent: check the line; it is tried again by itself",
        ),
        Cause::Certificate => (
            "certificado de autoridad desconocida: ponga la de su red o servidor en s3.ca_file, o entre en el portal de la red",
            "certificate of an unknown authority: name your network's or server's in s3.ca_file, or log in to the network's portal",
        ),
        Cause::CertificateTime => (
            "certificado fuera de fecha: ponga en hora el reloj de esta máquina; si está en hora, renueve el del servidor",
            "certificate out of date: set this machine's clock; if that is right, renew the server's certificate",
        ),
        Cause::ProxyCredentials => (
            "el proxy pide otro usuario: revise s3.proxy.user y s3.proxy.password",
            "the proxy wants another user: check s3.proxy.user and s3.proxy.password",
        ),
        Cause::ProxyRefused => (
            "el proxy no deja pasar: pida que permita el host y puerto de s3.endpoint",
            "the proxy does not let it through: ask for the host and port of s3.endpoint to be allowed",
        ),
        Cause::Portal => (
            "responde otro en su lugar: entre en el portal de la red con un navegador, o pida que el filtro deje pasar",
            "something else answers: log in to the network's portal with a browser, or ask for the filter to let it through",
        ),
        Cause::Busy | Cause::Server | Cause::Damaged | Cause::Conflict => (
            "el almacén falla o pide esperar: se reintenta solo; si dura, avise a quien lo opera",
            "the store fails or asks to wait: it is tried again by itself; if it lasts, tell whoever runs it",
        ),
        Cause::Key => (
            "clave desconocida o caducada: revise s3.access_key_id y s3.session_token",
            "key unknown or expired: check s3.access_key_id and s3.session_token",
        ),
        Cause::Signature => (
            "la clave secreta no corresponde: revise s3.secret_access_key",
            "the secret does not fit the key: check s3.secret_access_key",
        ),
        Cause::Clock => ("ponga en hora el reloj de esta máquina", "set this machine's clock"),
        Cause::Denied => (
            "a la clave le falta permiso: déle leer, listar, escribir y borrar bajo s3.prefix",
            "the key lacks a right: let it read, list, write and delete under s3.prefix",
        ),
        Cause::Bucket => ("el bucket no existe: revise s3.bucket", "the bucket does not exist: check s3.bucket"),
        Cause::Region => (
            "el bucket está en otra región: revise s3.region y s3.endpoint",
            "the bucket is in another region: check s3.region and s3.endpoint",
        ),
        Cause::Conditional => (
            "este almacén no respeta If-None-Match: actualícelo o use otro",
            "this store does not heed If-None-Match: upgrade it, or use another",
        ),
        Cause::Refused => (
            "el almacén no acepta la petición: revise s3.endpoint y s3.path_style",
            "the store refuses the request: check s3.endpoint and s3.path_style",
        ),
    }
}
