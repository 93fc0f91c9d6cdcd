"""Providers as real HTTP servers on loopback: they hold objects, hand out deltas, and sign and send webhooks as the provider
does; on demand they lose, duplicate, delay, reorder, throttle and expire. One file per provider; `server` and `courier` are
what they share. Nothing here is used by the product."""
