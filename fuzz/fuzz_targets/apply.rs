#![no_main]
diskdelta_fuzz::fuzz!(apply);
