package main

// ofRecords breaks what one bad record, block, log or reader of the log must not stop.
func ofRecords() []mutant {
	return []mutant{
		{
			name: "the-rest-of-a-torn-record-is-taken-for-rot", promise: 2, file: "internal/pebblelog/pebblelog.go",
			old:   "log == 0 && c.startsRecord() && len(c.payload) > 0",
			new:   "log == 0 && len(c.payload) > 0",
			tests: []string{"internal/pebblelog.TestATornLogIsNotCorrupt", "store/pebblemeta.TestAPowerLossWhileTheManifestGrows"},
		},
		{
			name: "rot-of-a-synced-manifest-is-taken-for-torn", promise: 4, file: "internal/pebblelog/pebblelog.go",
			old:   "log == 0 && c.startsRecord() && len(c.payload) > 0",
			new:   "log == 0 && c.startsRecord() && len(c.payload) > 1<<20",
			tests: []string{"internal/pebblelog.TestCorruptionBeforeTheEndOfALogIsFound"},
		},
		{
			name: "the-log-is-waited-for", promise: 11, file: "cmd/sluice/logqueue.go",
			old:   "	if q.closed || len(q.waiting)+len(p) > logBacklog {",
			new:   "	for !q.closed && len(q.waiting)+len(p) > 4<<10 {\n		q.mu.Unlock()\n		time.Sleep(time.Millisecond)\n		q.mu.Lock()\n	}\n	if q.closed {",
			tests: []string{"cmd/sluice.TestAServerWhoseLogNobodyReads"},
		},
		{
			name: "the-end-waits-for-the-log", promise: 12, file: "cmd/sluice/logqueue.go",
			old:   "	case <-t.C:\n",
			new:   "",
			tests: []string{"cmd/sluice.TestTheEndWaitsASecondForTheLog"},
		},
		{
			name: "a-log-without-a-reader-ends-the-server", promise: 11, file: "cmd/sluice/log.go",
			old:   "	signal.Ignore(syscall.SIGPIPE)\n",
			new:   "	signal.Reset(syscall.SIGPIPE)\n",
			tests: []string{"cmd/sluice.TestAServerWhoseLogHasNoReader"},
		},
		{
			name: "a-closed-terminal-kills-the-server", promise: 12, file: "cmd/sluice/main.go",
			old:   "	if !signal.Ignored(syscall.SIGHUP) {",
			new:   "	if signal.Ignored(syscall.SIGHUP) {",
			tests: []string{"cmd/sluice.TestAClosedTerminalDrains", "cmd/sluice.TestNohupIsHeeded"},
		},
		{
			name: "a-second-signal-waits-for-the-drain", promise: 12, file: "cmd/sluice/main.go",
			old:   "	context.AfterFunc(ctx, stop)\n	var c cli\n	e := &env{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, end: func() {}, restoreSignals: stop}",
			new:   "	var c cli\n	e := &env{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, end: func() {}, restoreSignals: func() {}}",
			tests: []string{"cmd/sluice.TestASecondSignalEndsTheServerAtOnce"},
		},
		{
			name: "rot-that-is-read-ends-the-server", promise: 13, file: "store/pebblemeta/open.go",
			old:   "BackgroundError: db.onBackgroundError, DataCorruption: db.corruption.onCorruption,",
			new:   "BackgroundError: db.onBackgroundError, DataCorruption: func(i pebble.DataCorruptionInfo) { db.fatal(i.Details) },",
			tests: []string{"store/pebblemeta.TestACorruptBlockTakesItsOwnRowsAlone"},
		},
		{
			name: "rot-hides-the-rows-next-to-it", promise: 13, file: "store/pebblemeta/holes.go",
			old:   "	for i := len(rest) - 1; i >= 0 && !w.done; i-- {",
			new:   "	for i := -1; i >= 0 && !w.done; i-- {",
			tests: []string{"store/pebblemeta.TestACorruptBlockTakesItsOwnRowsAlone"},
		},
		{
			name: "a-bad-session-ends-the-list", promise: 13, file: "store/pebblemeta/list.go",
			old:   "			if !v.skips(p.id, err) {\n",
			new:   "			if err != nil {\n",
			tests: []string{"store/pebblemeta.TestOneBadRowHarmsItselfAlone", "store/pebblemeta.TestARowThatCannotBeReadIsNamed"},
		},
		{
			name: "bad-totals-refuse-the-start", promise: 13, file: "store/pebblemeta/sessionrow.go",
			old:   "!errors.Is(err, catalog.ErrDamaged) {\n		return err\n	}\n	log.Error",
			new:   "err != nil || !errors.Is(err, catalog.ErrDamaged) {\n		return err\n	}\n	log.Error",
			tests: []string{"store/pebblemeta.TestOneBadRowHarmsItselfAlone"},
		},
		{
			name: "one-bad-due-thing-holds-up-the-rest", promise: 13, file: "catalog/memory.go",
			old:   "		if errors.Is(err, ErrDamaged) {\n			continue\n		}\n",
			new:   "",
			tests: []string{"store/pebblemeta.TestOneBadRowHarmsItselfAlone"},
		},
	}
}
