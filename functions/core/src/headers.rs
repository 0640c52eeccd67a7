//! The response headers of every answer, whatever host sends it.

/// Names in lower case, and values. A host sets each of them, in place of what an answer had.
pub const SECURITY_HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    // For browsers that do not know `frame-ancestors`.
    ("x-frame-options", "DENY"),
    // Store ids and dates stand in addresses.
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    // Answers show the lake as it is now, and only to whoever asked.
    ("cache-control", "no-store"),
];

/// Nothing is loaded and no script runs. The page has one style, known by its hash, and a form that asks
/// the page itself.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-wlOap+4oB6WsN1Q6T8cdSzwxmMQOZ44OWGttQnr0oZY='; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
