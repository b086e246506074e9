#![no_main]
diskdelta_fuzz::fuzz!(remote_source);
