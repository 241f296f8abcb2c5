package main

// ofBounds takes away what bounds the server's memory and requests, and what it does on a full
// disk.
func ofBounds() []mutant {
	return []mutant{
		{
			name: "each-put-has-a-large-buffer", promise: 11, file: "session/service.go",
			old:   "	orDefault(&cfg.Small, 32<<10)",
			new:   "	orDefault(&cfg.Small, 1<<20)",
			tests: []string{"cmd/sluice.TestTricklingConnections"},
		},
		{
			name: "each-request-has-another-goroutine", promise: 11, file: "api/middleware.go",
			old:   "		err := c.checkFraming()",
			new:   "		for range 2 {\n			go func() { <-r.Context().Done() }()\n		}\n		err := c.checkFraming()",
			tests: []string{"cmd/sluice.TestTricklingConnections"},
		},
		{
			name: "connections-are-not-bounded", promise: 11, file: "cmd/sluice/wire.go",
			old:   "		MaxConns: b.Connections, ",
			new:   "		",
			tests: []string{"cmd/sluice.TestTricklingConnections"},
		},
		{
			name: "any-byte-is-fast-enough", promise: 11, file: "api/body.go",
			old:   "	if m.received += n; m.received >= m.bytes {",
			new:   "	if m.received += n; n > 0 {",
			tests: []string{"api.TestAByteNowAndThenIsTooSlow"},
		},
		{
			name: "there-is-no-minimum-rate", promise: 11, file: "api/body.go",
			old:   "		m.due = now.Add(m.window)\n	case",
			new:   "		m.due = now.Add(24 * time.Hour)\n	case",
			tests: []string{"api.TestAByteNowAndThenIsTooSlow", "api.TestEveryCodeOfTheContract"},
		},
		{
			name: "a-stream-has-gos-own-window", promise: 11, file: "api/flow.go",
			old:   "		MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connWindow,\n",
			new:   "",
			tests: []string{"api.TestOneStreamFillsALongWay"},
		},
		{
			name: "a-connection-has-the-window-of-one-stream", promise: 11, file: "api/flow.go",
			old:   "	connWindow = 4 * streamWindow",
			new:   "	connWindow = streamWindow",
			tests: []string{"api.TestAStreamThatIsNotReadHoldsUpNoOther"},
		},
		{
			name: "frames-may-be-long", promise: 11, file: "api/flow.go",
			old:   "	maxFrame = 16 << 10",
			new:   "	maxFrame = 1 << 20",
			tests: []string{"api.TestOneStreamFillsALongWay"},
		},
		{
			name: "the-backlog-holds-nobody", promise: 11, file: "api/flow.go",
			old:   "	for m.shared.bytes > m.shared.max &&",
			new:   "	for false &&",
			tests: []string{"api.TestWhatIsNotReadIsBounded"},
		},
		{
			name: "the-backlog-holds-everybody", promise: 11, file: "api/flow.go",
			old:   " && m.unread > m.shared.each && !m.closed {",
			new:   " && !m.closed {",
			tests: []string{"api.TestWhatIsNotReadIsBounded"},
		},
		{
			name: "a-closed-connection-keeps-its-backlog", promise: 11, file: "api/flow.go",
			old:   "	m.shared.bytes -= m.unread\n",
			new:   "",
			tests: []string{"api.TestWhatIsNotReadIsBounded"},
		},
		{
			name: "more-than-the-window-is-taken", promise: 11, file: "api/flow.go",
			old:   "	if n > 0 && m.add(n) > connWindow {",
			new:   "	if m.add(n) < 0 {",
			tests: []string{"api.TestTheMeterReadsTheWire"},
		},
		{
			name: "open-sessions-are-kept-in-memory", promise: 11, file: "session/service.go",
			old:   "			return v.withEnds(s), true, nil\n		}\n		s, err = v.loadAndTouch",
			new:   "			v.acquire(s.ID)\n			return v.withEnds(s), true, nil\n		}\n		s, err = v.loadAndTouch",
			tests: []string{"cmd/sluice.TestOpenSessionsAreNotInMemory"},
		},
		{
			name: "a-buffer-is-as-large-as-the-chunk", promise: 11, file: "session/copy.go",
			old:   "	if b := in.buffer.Acquire(off, n); b != nil {",
			new:   "	if n > 0 {\n		return make([]byte, n)\n	}\n	if b := in.buffer.Acquire(off, n); b != nil {",
			tests: []string{"cmd/sluice.TestMemoryDoesNotDependOnTheSizeOfChunks"},
		},
		{
			name: "small-pieces-are-recorded-alone", promise: 11, file: "session/record.go",
			old:   "	if t.mode.whole || len(t.pending) == 0 ||",
			new:   "	if true ||",
			tests: []string{"api.TestOneByteRangesInTheWorstOrder", "cmd/sluice.TestTheServerHasASmallestPiece"},
		},
		{
			name: "the-server-has-no-smallest-piece", promise: 11, file: "cmd/sluice/wire.go",
			old:   "MinEntry: 4 << 10, ",
			new:   "",
			tests: []string{"cmd/sluice.TestTheServerHasASmallestPiece"},
		},
		{
			name: "running-requests-are-not-bounded", promise: 12, file: "api/limiter.go",
			old:   "	if l.used+n > l.max {",
			new:   "	if false {",
			tests: []string{"api.TestALimitIsSaidBeforeTheBody"},
		},
		{
			name: "a-limit-is-said-after-the-body", promise: 12, file: "upload/create.go",
			old:   "	encoded, err := n.encode()",
			new:   "	kept, _ := io.ReadAll(body)\n	body = bytes.NewReader(kept)\n	encoded, err := n.encode()",
			tests: []string{"api.TestALimitIsSaidBeforeTheBody"},
		},
		{
			name: "the-reserve-is-not-used", promise: 6, file: "store/pebblemeta/reservefs.go",
			old:   "	for noSpace(err) && rfs.reserve.releasePart() {",
			new:   "	for false {",
			tests: []string{"store/pebblemeta.TestAStartOnAFullDisk", "store/pebblemeta.TestCommitsGoOnWhenTheDiskIsFull"},
		},
		{
			name: "what-found-no-room-is-not-tried-again", promise: 6, file: "store/pebblemeta/reservefs.go",
			old:   "	for noSpace(err) && rfs.reserve.releasePart() {\n		err = do()\n	}",
			new:   "	if noSpace(err) {\n		rfs.reserve.releasePart()\n	}",
			tests: []string{"store/pebblemeta.TestAStartOnAFullDisk", "store/pebblemeta.TestCommitsGoOnWhenTheDiskIsFull"},
		},
		{
			name: "a-start-forgets-that-the-disk-is-full", promise: 6, file: "store/pebblemeta/open.go",
			old:   "		db.reserve.diskFull.Store(true)\n",
			new:   "		db.reserve.diskFull.Store(false)\n",
			tests: []string{"store/pebblemeta.TestAStartOnAFullDisk", "cmd/sluice.TestAFullDiskOfTheMetadataAlone"},
		},
		{
			name: "the-reserve-is-given-up-without-end", promise: 6, file: "store/pebblemeta/reserve.go",
			old:   "	for len(r.parts) > 0 {\n		last := r.parts[len(r.parts)-1]\n		r.parts = r.parts[:len(r.parts)-1]\n		if r.disk.Remove(last) == nil {\n			return true\n		}\n	}\n	return false",
			new:   "	for len(r.parts) > 0 {\n		last := r.parts[len(r.parts)-1]\n		r.parts = r.parts[:len(r.parts)-1]\n		if r.disk.Remove(last) == nil {\n			return true\n		}\n	}\n	return true",
			tests: []string{"store/pebblemeta.TestTheReserveHasAnEnd"},
		},
		{
			name: "uploads-do-not-ask-the-metadata-for-room", promise: 6, file: "cmd/sluice/wire.go",
			old:   "CheckSpace: s.checkSpace, ",
			new:   "",
			tests: []string{"cmd/sluice.TestAFullDiskOfTheMetadataAlone"},
		},
		{
			name: "each-failure-of-a-batch-names-all-its-gaps", promise: 11, file: "upload/finish.go",
			old:   "		if len(rs) > *budget {",
			new:   "		if false {",
			tests: []string{"upload.TestTheFailuresOfABatchNameSoManyRanges"},
		},
		{
			name: "a-batch-has-any-number-of-pieces", promise: 11, file: "upload/finish.go",
			old:   "limit > 0 && entries > limit && len(reqs) > 1 {",
			new:   "limit < 0 {",
			tests: []string{"upload.TestABatchHasSoManyPieces"},
		},
	}
}
