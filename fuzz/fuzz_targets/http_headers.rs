#![no_main]
diskdelta_fuzz::fuzz!(http_headers);
