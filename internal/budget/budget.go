// Package budget divides the descriptors and the memory that the machine gives this process among
// those who use much of them. So the limits fit small machines too.
//
// It owns the rule. It does not own the limits, which are the system's, nor what is done where a
// limit is reached. With 2,048 descriptors and 2 GiB of memory, or more, every part has what it has
// without a limit. Only the numbers of connections and requests go on growing.
package budget

// Machine is what the process may use. 0 means that there is no limit, or that it is not known.
type Machine struct {
	Descriptors int64
	Memory      int64 // bytes, of the control group
}

// Budget says who may use how much.
type Budget struct {
	Machine
	// Connections is how many may be open at one time, Requests how many may run, and Refused how
	// many refused requests may wait for their clients.
	Connections, Requests, Refused int64
	// Files is how many files of content stay open although nobody uses them, and Tables how many
	// tables of the metadata.
	Files, Tables int
	// Heap is the soft limit of Go's memory in bytes; 0: none.
	Heap int64
	// Head is how many bytes the head of a request may have.
	Head int64
	// States is how many bytes the received ranges of active sessions may take; 0: no bound.
	States int64
	// FinishEntries is how many entries all finishes under way may have, and BatchEntries how many
	// those of one batch.
	FinishEntries int64
	BatchEntries  int
	// Unread is how many bytes of HTTP/2 bodies may have arrived before their requests read them.
	Unread int64
	// JSON is how many bytes the bodies of JSON requests may take. AnswerBytes is the same for all
	// JSON responses, and once more for all blocks of content that are being sent.
	JSON, AnswerBytes int64
	// DirectBuffers is the number of buffers of 1 MiB, and LargeBuffers that of buffers of 256 KiB.
	// Fast uploads share them.
	DirectBuffers, LargeBuffers int
}

const (
	kib            = 1 << 10
	mib            = 1 << 20
	maxConnections = 1 << 16 // connections, without a limit
	// Least is the smallest memory in bytes that all parts fit into together.
	Least = 256 * mib

	// The following is what one of each takes in bytes at most, as measured (package attack). A
	// request comes beside its connection.
	//
	// A connection has two buffers and a head that is under way, or those of HTTP/2 with a frame,
	// and two or three stacks.
	perConnection = 48 * kib
	// healthConns connections beyond the bound are for those who ask for health. refusals is the
	// number of connections beyond the bound that are being refused (package api).
	healthConns, refusals = 32, 64
	beyondBound           = healthConns*perConnection + refusals*perRefused
	// A request has a stack, a buffer each for its body and its response, and on HTTP/2 the part of
	// its body that has arrived and always may (16 KiB, twice).
	perRequest = 80 * kib
	// An entry of an upload that is being finished is in memory up to three times.
	perEntry = 320
	// A refused request has a stack, its head and its response.
	perRefused = 16 * kib
	// minJSON lets one principal, which has three quarters, send the longest possible body.
	minJSON = 4 * 8 * mib / 3 * 4

	// The rest does not depend on how many clients come.
	//
	// The metadata's tables and blocks, and the buffers of packs, are outside of Go's heap.
	stores = 22 * mib
	// base is for the rows in caches, and for everything else that an idle server has.
	base = 24 * mib
)

// Part is a share of the memory.
type Part struct {
	Name  string
	Bytes int64
}

// Parts lists the shares of a limited memory. Together they leave free what the system takes for
// the process, and what Go's collector needs: see Of.
func (b Budget) Parts() []Part {
	return []Part{
		{"connections", b.Connections*perConnection + beyondBound},
		{"requests", b.Requests * perRequest},
		{"refused requests", b.Refused * perRefused},
		{"unread bodies", b.Unread},
		{"states of sessions", b.States},
		{"entries of finishes", b.FinishEntries * perEntry},
		{"JSON bodies", b.JSON},
		{"JSON answers", b.AnswerBytes},
		{"pieces of contents", b.AnswerBytes},
		{"direct buffers", int64(b.DirectBuffers) * mib},
		{"large buffers", int64(b.LargeBuffers) * 256 * kib},
		{"stores", stores},
		{"base", base},
	}
}

// Of divides what a machine gives. A connection needs a descriptor for itself and mostly one for a
// file. The stores need some of their own, however many clients there are. A tenth of the memory is
// the system's (stacks of threads, page tables, socket buffers). At least an eighth is for what
// Go's collector has not collected yet.
func Of(m Machine) Budget {
	b := Budget{
		Machine: m, Connections: maxConnections, Requests: 16384, Refused: 256, Files: 256, Tables: 256,
		Head: 64 * kib, BatchEntries: 1 << 18, Unread: 128 * mib,
		JSON: 64 * mib, AnswerBytes: 64 * mib, DirectBuffers: 24, LargeBuffers: 64,
	}
	if n := m.Descriptors; n > 0 {
		const stores = 1024
		b.Connections = min(max((n-stores)/2, n/4, 1), maxConnections)
		b.Files, b.Tables = share(n/8, b.Files), share(n/8, b.Tables)
	}
	if n := m.Memory; n > 0 {
		part := n / 32
		b.Connections = min(b.Connections, max((5*part/2-beyondBound)/perConnection, 16))
		b.Requests = min(b.Requests, max(3*part/perRequest, 64))
		b.Refused = min(b.Refused, max(part/2/perRefused, 16))
		b.Head = min(b.Head, max(n/(16*kib), 8*kib))
		b.States, b.FinishEntries = part, part/2/perEntry
		b.BatchEntries = share(b.FinishEntries, b.BatchEntries)
		b.Unread, b.AnswerBytes = min(b.Unread, 2*part), min(b.AnswerBytes, part)
		b.JSON = min(b.JSON, max(2*part, minJSON))
		b.DirectBuffers, b.LargeBuffers = share(part/mib, b.DirectBuffers), share(part/(256*kib), b.LargeBuffers)
		b.Heap = max(n-n/10-stores-int64(b.DirectBuffers)*mib, n/2)
	}
	return b
}

// share limits n to the range from 1 to limit.
func share(n int64, limit int) int { return int(min(max(n, 1), int64(limit))) }
