package main

import (
	"context"
	"net/http"
)

// system is one thing that is measured.
type system struct {
	name     string // in flags
	label    string // in tables
	settings string // how it runs, and what its answer promises
	start    func(ctx context.Context, bins, dir string) (server, error)
}

// server is a system that runs, on its own empty folder.
type server interface {
	process() *process
	// store uploads an item in its chunks, several at a time; create uploads it in one request.
	// Both return when the server has all of it, and say where it is.
	store(c *client, it item, inflight int) (ref string, err error)
	create(c *client, it item) (ref string, err error)
	// fetch is the request that reads it.
	fetch(ref string) (*http.Request, error)
}

// otherBuild is the program of -before. It takes part wherever Sluice does.
const otherBuild = "before"

// systems are all systems, in the order of the tables.
var systems = []system{
	{
		"sluice", "**Sluice**",
		"`sluice serve` with its defaults; SHA-256 verified; an acknowledged chunk survives kill -9, a finished " +
			"upload power loss",
		startSluice,
	},
	{
		otherBuild, "Sluice, the other build", "the program of `-before`, as above", startOther,
	},
	{
		"floor", "floor (direct I/O)",
		"`floors -kind direct`, in the chunks that all others get: reads, hashes, writes past the page cache, " +
			"syncs file and folder at the end",
		startFloor("direct", false),
	},
	{
		"floor-1", "floor, one request", "as the floor, the whole upload as one body", startFloor("direct", true),
	},
	{
		"bare", "bare handler",
		"`floors -kind bare`: as the floor, with buffered writes; in the read scenarios a static file server " +
			"(sendfile)",
		startFloor("bare", false),
	},
	{
		"pack", "floor (pack)",
		"`floors -kind pack`: reads, hashes, appends to one file with a group sync, then commits a record to Pebble",
		startFloor("pack", false),
	},
	{
		"tusd", "tusd",
		"`tusd -verbose=false`, else its defaults, on a folder; **verifies no digest, syncs nothing**; in b: " +
			"partial uploads, concatenated",
		startTusd("tusd"),
	},
	{
		"tusd-synced", "tusd, synced",
		"tusd's handler, file store and locker of the same version in a small program (`peers/tusdsynced`) that " +
			"syncs content, info and folder before the answer to an " +
			"upload's end, and no partial upload; verifies no digest", startTusd("tusdsynced"),
	},
	{
		"registry", "OCI registry",
		"`registry serve`, file system driver, descriptor cache in memory, no access log, logs errors only, " +
			"no traces; verifies SHA-256, syncs the file after each request " +
			"(not the folder); chunks in order only", startRegistry,
	},
	{
		"versitygw", "versitygw",
		"`versitygw posix`, quiet; verifies the SHA-256 of each request (signed payload), in a–c multipart; " +
			"**syncs nothing**",
		startVersitygw,
	},
}

func systemOf(name string) (system, bool) {
	for _, s := range systems {
		if s.name == name {
			return s, true
		}
	}
	return system{}, false
}
