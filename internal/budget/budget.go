// Package budget divides what the machine gives this process, descriptors and memory, among those who use much of it, so that no number that was fixed on a large
// machine is too much on a small one.
//
// It owns the rule. It does not own the limits (the system's), nor what is done where they are reached. With 2,048 descriptors and 1 GiB of memory, or more,
// every part has what it has without a limit but for the connections and requests, the number of which goes on growing.
package budget

// Machine is what the process may use; 0 is no limit, or one that is not known.
type Machine struct {
	Descriptors int64
	Memory      int64 // bytes, of the control group
}

// Budget is who may use how much.
type Budget struct {
	Machine
	// Connections may be open, and Requests run, at one time.
	Connections, Requests int64
	// Files of content stay open although nobody uses them, and Tables of the metadata.
	Files, Tables int
	// Heap is the soft limit of Go's memory in bytes; 0: none.
	Heap int64
	// Unread is how many bytes of bodies that have come on HTTP/2 may wait for their requests.
	Unread int64
	// Held is how many bytes requests may hold of each of JSON bodies, JSON answers and pieces of contents.
	Held int64
	// Lent are the buffers of 1 MiB, and Large those of 256 KiB, that uploads which come fast share.
	Lent, Large int
}

const (
	most = 1 << 16 // connections, without a limit
	mib  = 1 << 20
	// perConnection is what a connection takes in bytes, with a request that holds a small buffer; resident, as measured.
	perConnection = 96 << 10
)

// Of divides what a machine gives. A connection needs a descriptor for itself and mostly one for a file, and the stores need some of their own, however many clients there
// are. Of the memory a quarter is for connections, an eighth for what HTTP/2 has brought early, a sixteenth each for both
// kinds of buffers and for each kind of what requests hold, and the rest for everything else.
func Of(m Machine) Budget {
	b := Budget{
		Machine: m, Connections: most, Requests: 16384, Files: 256, Tables: 256, Unread: 128 * mib, Held: 64 * mib, Lent: 24, Large: 64,
	}
	if n := m.Descriptors; n > 0 {
		const stores = 1024
		b.Connections = min(max((n-stores)/2, n/4, 1), most)
		b.Files, b.Tables = share(n/8, b.Files), share(n/8, b.Tables)
	}
	if n := m.Memory; n > 0 {
		b.Connections = min(b.Connections, max(n/4/perConnection, 16))
		b.Requests = min(b.Requests, max(n/4/perConnection, 64))
		b.Unread, b.Held = min(b.Unread, n/8), min(b.Held, n/16)
		b.Lent, b.Large = share(n/16/mib, b.Lent), share(n/16/(256<<10), b.Large)
		// What is outside of Go's heap: the lent buffers, those of packs, and the metadata's cache.
		const outside = 40 * mib
		b.Heap = max(n-n/8-outside-int64(b.Lent)*mib, n/2)
	}
	return b
}

// share is n, but 1 at least and `full` at most.
func share(n int64, full int) int { return int(min(max(n, 1), int64(full))) }
