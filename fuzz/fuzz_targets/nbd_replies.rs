#![no_main]
diskdelta_fuzz::fuzz!(nbd_replies);
