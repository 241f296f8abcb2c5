package main

// ofSession breaks the session engine and its journal.
func ofSession() []mutant {
	return []mutant{
		{
			name: "a-recorded-byte-is-written-again", promise: 4, file: "session/put.go",
			old:   "if next := t.s.Received[i]; next.Off <= t.pos {\n\t\t\t\trecorded = true",
			new:   "if next := t.s.Received[i]; next.Off <= t.pos {\n\t\t\t\trecorded = false",
			tests: []string{"session.TestARecordedByteIsNeverWrittenAgain", "upload.TestRecordedBytesAreNeverRewritten"},
		},
		{
			name: "a-put-does-not-look-again-at-what-is-recorded", promise: 4, file: "session/put.go",
			old:   "	if err := v.checkNewEntry(s, ",
			new:   "	s.Received = nil\n	if err := v.checkNewEntry(s, ",
			tests: []string{"session.TestAPutSeesWhatTheOneBeforeItRecorded"},
		},
		{
			name: "a-put-is-answered-before-it-is-recorded", promise: 1, file: "session/put.go",
			old:   "	if err := t.record(ctx, true); err != nil {\n		return err\n	}\n	return t.reason(copyErr)",
			new:   "	go func() { _ = t.record(ctx, true) }()\n	t.recordedTo = t.pos\n	return t.reason(copyErr)",
			tests: []string{"session.TestNothingIsAnsweredBeforeItIsRecorded", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "a-put-is-recorded-before-the-sink-made-it-safe", promise: 1, file: "session/record.go",
			old:   "			note, err := c.Commit(ctx, r)\n			if err != nil {\n				return nil, err\n			}",
			new:   "			note, _ := c.Commit(ctx, r)",
			tests: []string{"session.TestWhatTheSinkRefusesIsNotRecorded", "internal/test/crashtest.TestAFailureOfEveryStep"},
		},
		{
			name: "part-of-a-cut-chunk-is-recorded", promise: 1, file: "session/put.go",
			old:   "	if copyErr != nil && (t.mode.whole || errors.Is(copyErr, errFatal)) {",
			new:   "	if copyErr != nil && errors.Is(copyErr, errFatal) {",
			tests: []string{"session.TestNothingOfABadChunkIsRecorded"},
		},
		{
			name: "a-stale-state-is-believed", promise: 4, file: "session/session.go",
			old:   "		if d.Gen > gen && d.Overlaps(r) {",
			new:   "		if d.Gen > gen && d.Overlaps(r) && false {",
			tests: []string{"session.TestADropThroughAnotherServiceFencesAPut", "upload.TestAStaleHashStateIsNotBelieved"},
		},
		{
			name: "a-take-over-does-not-fence", promise: 4, file: "session/claim.go",
			old:   "	if p.fenced || (p.stopped && (p.whole || !commit)) {",
			new:   "	if false {",
			tests: []string{"session.TestANewerPutTakesOver"},
		},
		{
			name: "a-seal-does-not-ask-for-the-generation", promise: 4, file: "session/end.go",
			old:   "	if f.Gen != 0 && f.Gen != s.Gen {",
			new:   "	if false {",
			tests: []string{"session.TestASealIsOfWhatWasVerified"},
		},
		{
			name: "a-finish-does-not-ask-for-all-bytes", promise: 3, file: "session/end.go",
			old:   "gaps := Gaps(s.Received, Range{0, length}, most+1); len(gaps) > 0 {",
			new:   "gaps := Gaps(s.Received, Range{0, length}, most+1); len(gaps) > most {",
			tests: []string{"session.TestAnyHistory"},
		},
		{
			name: "two-ends-both-win", promise: 5, file: "session/rules.go",
			old:   "		if s.State.Ended() {\n			return s, false, s.State.Err()\n		}\n		if s.Gen != step.Gen {\n			return s, false, ErrFenced\n		}\n		s.Seen",
			new:   "		s.Seen",
			tests: []string{"session.TestMemIsAStore"},
		},
		{
			name: "time-is-the-wall-clock", promise: 9, file: "session/expiry.go",
			old:   "	step := min(max(now.Sub(v.lastTick), 0), v.cfg.MaxStep)",
			new:   "	step := max(now.Sub(v.lastTick), 0)",
			tests: []string{"session.TestTimeCountsInTicks", "keeper.TestAClockThatJumpsEndsNothing", "internal/test/crashtest.TestAnyHistory"},
		},
		{
			name: "a-takeover-does-not-wait-for-a-write-under-way", promise: 4, file: "session/claim.go",
			old:   "		p.buffer.Wait()\n	}\n	return p.committing",
			new:   "	}\n	return p.committing",
			tests: []string{"session.TestAnyHistory"},
		},
		{
			name: "the-running-time-is-not-kept", promise: 9, file: "session/expiry.go",
			old:   "	due := running-v.storedTime >= v.cfg.MaxStep.Milliseconds()",
			new:   "	due := false",
			tests: []string{"session.TestTheRunningTimeIsKept", "session.TestAnyHistory"},
		},
		{
			name: "a-session-with-a-running-put-expires", promise: 1, file: "session/expiry.go",
			old:   "			if v.busy(s.ID) {",
			new:   "			if false {",
			tests: []string{"session.TestARunningPutKeepsItsSession"},
		},
		{
			name: "an-expired-session-keeps-its-idem", promise: 5, file: "session/mem.go",
			old:   "	case Open, Sealed, Finished:\n		m.idem[key] = row.s.ID",
			new:   "	case Open, Sealed, Finished, Aborted, Expired:\n		m.idem[key] = row.s.ID",
			tests: []string{"session.TestMemIsAStore"},
		},
		{
			name: "the-journal-shows-before-it-syncs", promise: 9, file: "session/journal/journal.go",
			old:   "	if err := j.file.Sync(); err != nil {\n",
			new:   "	if err := error(nil); err != nil {\n",
			tests: []string{"session/journal.TestWhatReturnedSurvivesAPowerCut"},
		},
		{
			name: "damage-in-the-journal-is-taken-for-its-end", promise: 4, file: "session/journal/format.go",
			old:   "		if err == nil && len(payload) > 0 {",
			new:   "		if err == nil && len(payload) < 0 {",
			tests: []string{"session/journal.TestDamageIsNeverMistakenForTheEnd"},
		},
	}
}
