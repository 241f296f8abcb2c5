package main

// ofWaits breaks what ends waits, what is given back, and what is looked at again.
func ofWaits() []mutant {
	return []mutant{
		{
			name: "a-wait-for-an-earlier-put-never-ends", promise: 11, file: "session/claim.go",
			old:   "	limited, cancel := context.WithTimeout(ctx, v.cfg.Wait)",
			new:   "	limited, cancel := context.WithCancel(ctx)",
			tests: []string{"session.TestAWaitForAnEarlierPutEnds"},
		},
		{
			name: "a-put-that-was-waited-for-is-taken-over", promise: 5, file: "session/claim.go",
			old:   "o.firm = o.firm || n >= fairTakeovers",
			new:   "o.firm = n >= fairTakeovers",
			tests: []string{"session.TestAWaitForAnEarlierPutEnds"},
		},
		{
			name: "the-puts-of-a-session-have-no-bound", promise: 11, file: "session/claim.go",
			old:   "	if *n >= most {",
			new:   "	if *n < 0 {",
			tests: []string{"session.TestTheNumberOfPutsIsBounded"},
		},
		{
			name: "a-put-does-not-wait-for-an-end", promise: 5, file: "session/put.go",
			old:   "	s, err := v.Settled(ctx, id)\n	if err == nil {\n		err = s.State.Err()",
			new:   "	s, err := v.store.Load(ctx, id)\n	if err == nil {\n		err = s.State.Err()",
			tests: []string{"session.TestAPutWaitsForTheEndThatItMeets", "upload.TestAReplacementMeetsAFinish"},
		},
		{
			name: "a-record-does-not-wait-for-an-end", promise: 5, file: "session/record.go",
			old:   "		case !errors.Is(err, ErrSealed):\n			return err",
			new:   "		case true:\n			return err",
			tests: []string{"session.TestAPutWaitsForTheEndThatItMeets"},
		},
		{
			name: "an-end-that-panics-stays-sealed", promise: 13, file: "session/end.go",
			old:   "				_ = v.reopen(ctx, sealed)\n",
			new:   "",
			tests: []string{"session.TestAPanicLeavesNothing"},
		},
		{
			name: "a-put-that-panics-keeps-its-turn", promise: 13, file: "upload/sink.go",
			old:   "	defer k.turn.leave()\n	return put(k.turn)",
			new:   "	err := put(k.turn)\n	k.turn.leave()\n	return err",
			tests: []string{"upload.TestAPanicLeavesItsTurn"},
		},
		{
			name: "a-put-writes-where-the-withdrawn-lies", promise: 4, file: "upload/sink.go",
			old:   "func (k *sink) Claimed(s session.Session) { k.s = s }",
			new:   "func (k *sink) Claimed(session.Session) {}",
			tests: []string{"upload.TestWhatWasWithdrawnIsNotWrittenAgain"},
		},
		{
			name: "a-put-does-not-see-a-length-that-was-fixed", promise: 5, file: "session/put.go",
			old:   "	p.r.End = min(p.r.End, s.BytesExpected)\n",
			new:   "",
			tests: []string{"session.TestALengthIsFixedBeforeTheClaim"},
		},
		{
			name: "a-hash-holds-its-place-to-the-end", promise: 11, file: "upload/hashers.go",
			old:   "	slice = 16 << 20",
			new:   "	slice = 1 << 50",
			tests: []string{"upload.TestASmallFinishDoesNotWaitForLargeHashes"},
		},
		{
			name: "a-place-to-hash-goes-to-the-eldest", promise: 11, file: "upload/hashers.go",
			old:   "	if h.picks++; h.picks%eldestOf != 0 {",
			new:   "	if h.picks++; false {",
			tests: []string{"upload.TestAPlaceGoesToTheShortestThatIsAwaited"},
		},
		{
			name: "short-hashes-starve-long-ones", promise: 11, file: "upload/hashers.go",
			old:   "	if h.picks++; h.picks%eldestOf != 0 {",
			new:   "	if h.picks++; true {",
			tests: []string{"upload.TestAPlaceGoesToTheShortestThatIsAwaited"},
		},
		{
			name: "a-place-to-hash-is-lost", promise: 11, file: "upload/hashers.go",
			old:   "		h.pass() // it was given meanwhile\n",
			new:   "		_ = i\n",
			tests: []string{"upload.TestAPlaceIsNotLost"},
		},
		{
			name: "a-panic-behind-the-puts-ends-the-process", promise: 13, file: "upload/follow.go",
			old:   "		err := panics.Try(func() error { return u.catchUp(u.stop, t) })",
			new:   "		err := func() error { _ = panics.Try; return u.catchUp(u.stop, t) }()",
			tests: []string{"upload.TestAPanicBehindThePutsIsAnError"},
		},
		{
			name: "a-panic-of-the-comparison-ends-the-process", promise: 13, file: "upload/trust.go",
			old:   "		err := panics.Try(func() error { return u.drop(u.stop, t.id, session.All(), care) })",
			new:   "		err := func() error { _ = panics.Try; return u.drop(u.stop, t.id, session.All(), care) }()",
			tests: []string{"upload.TestAPanicOfTheComparisonIsAnError"},
		},
		{
			name: "a-panic-at-one-place-ends-the-sweep", promise: 13, file: "keeper/sweep.go",
			old:   "			s.failed.add(panics.Try(func() error { return s.place(ctx, p) }))",
			new:   "			if err := panics.Try(func() error { return s.place(ctx, p) }); err != nil {\n				return s.deleted, err\n			}",
			tests: []string{"keeper.TestAPanicAtOnePlaceKeepsNoOther"},
		},
		{
			name: "a-panic-at-what-is-due-ends-the-tick", promise: 13, file: "keeper/keeper.go",
			old:   "				failed.add(panics.Try(func() error { return k.do(ctx, d) }))",
			new:   "				failed.add(k.do(ctx, d))",
			tests: []string{"keeper.TestAPanicAtOnePlaceKeepsNoOther"},
		},
		{
			name: "a-panic-at-one-content-ends-the-pass", promise: 13, file: "keeper/scrub.go",
			old:   "		if lost := (*panics.Error)(nil); errors.As(err, &lost) {",
			new:   "		if lost := (*panics.Error)(nil); errors.As(err, &lost) && s == nil {",
			tests: []string{"keeper.TestScrubSurvivesAPanic"},
		},
		{
			name: "a-bad-capsule-keeps-all-events", promise: 13, file: "keeper/sweep.go",
			old:   "			if errors.Is(err, catalog.ErrDamaged) {\n				continue\n			}",
			new:   "",
			tests: []string{"keeper.TestABadCapsuleKeepsNoOtherFromForgetting"},
		},
		{
			name: "a-sync-that-panics-is-forgotten", promise: 2, file: "store/localblob/settle.go",
			old:   "		if err == errUnfinished { // it panicked",
			new:   "		if false { // it panicked",
			tests: []string{"store/localblob.TestASyncThatPanicsIsAFailedOne"},
		},
		{
			name: "content-that-is-gone-is-an-internal-error", promise: 4, file: "api/errors.go",
			old:   "	{upload.ErrNoPlace, CodeDamaged, 0},\n",
			new:   "",
			tests: []string{"api.TestContentThatIsGoneIsDamaged"},
		},
		{
			name: "a-trickle-keeps-a-large-buffer", promise: 11, file: "session/copy.go",
			old:   "	in.until = in.v.cfg.Clock.Now().Add(holdFor)\n",
			new:   "",
			tests: []string{"session.TestATrickleKeepsNoLargeBuffer"},
		},
		{
			name: "resting-uploads-keep-the-last-descriptor", promise: 6, file: "store/localblob/file.go",
			old:   "	for tries := 0; notTried(err) && tries < 3 && s.shed(); tries++ {",
			new:   "	for tries := 0; notTried(err) && tries < 0 && s.shed(); tries++ {",
			tests: []string{"store/localblob.TestRestingUploadsMakeWay"},
		},
		{
			name: "no-descriptor-is-kept-for-closing-others", promise: 6, file: "store/localblob/file.go",
			old:   "	if keep {\n		s.hoarded, _ =",
			new:   "	if false {\n		s.hoarded, _ =",
			tests: []string{"store/localblob.TestRestingUploadsMakeWay"},
		},
		{
			name: "the-number-of-kept-files-is-fixed", promise: 11, file: "store/localblob/file.go",
			old:   "	if len(s.idle) > s.opts.Files && !s.trimming {",
			new:   "	if len(s.idle) > 256 && !s.trimming {",
			tests: []string{"store/localblob.TestTheNumberOfKeptFilesIsGiven"},
		},
		{
			name: "the-least-limit-of-memory-is-not-taken", promise: 11, file: "internal/budget/machine_linux.go",
			old:   "(least == 0 || n < least)",
			new:   "least == 0",
			tests: []string{"internal/budget.TestTheMemoryLimitOfAControlGroup"},
		},
		{
			name: "connections-do-not-follow-the-memory", promise: 11, file: "internal/budget/budget.go",
			old:   "		b.Connections = min(b.Connections, max(n/4/perConnection, 16))\n",
			new:   "",
			tests: []string{"internal/budget.TestTheSumIsBelowTheLimit"},
		},
	}
}
