package main

// ofLimits breaks what bounds a client: the types of a capsule, the longest life of a session, and
// what is said before an upload.
func ofLimits() []mutant {
	return []mutant{
		{
			name: "the-types-are-not-asked-for-in-the-commit", promise: 15, file: "catalog/publish.go",
			old:   "	if err := CheckMIME(m.MIME, c.MIMETypes); err != nil {\n		return m, err\n	}\n",
			new:   "",
			tests: []string{"catalog.TestACapsuleTakesItsTypesAlone", "upload.TestTheTypesAreAskedForInTheCommit"},
		},
		{
			name: "the-types-are-asked-for-in-the-commit-alone", promise: 17, file: "upload/hook.go",
			old:   "		return catalog.CheckMIME(n.Meta.MIME, capsule.MIMETypes)\n",
			new:   "		_ = capsule\n		return nil\n",
			tests: []string{"upload.TestATypeThatIsNotTaken"},
		},
		{
			name: "a-sniffed-type-is-not-asked-for-in-the-commit", promise: 15, file: "upload/mime.go",
			old:   "		return errUnsniffed\n	}\n",
			new:   "		return nil\n	}\n",
			tests: []string{"upload.TestTheTypesAreAskedForInTheCommit"},
		},
		{
			name: "a-sniffed-type-does-not-veto", promise: 17, file: "upload/finish.go",
			old:   "					err = takes(v.sniffed, v.n.Meta.MIME, capsule.MIMETypes, ticket.MIME)\n",
			new:   "					_ = capsule\n",
			tests: []string{"upload.TestASniffedTypeVetoes", "api.TestACapsuleWithTypes"},
		},
		{
			name: "a-ticket-takes-any-type", promise: 17, file: "upload/hook.go",
			old:   "	return catalog.CheckMIME(mime, g.MIME)\n",
			new:   "	return nil\n",
			tests: []string{"api.TestATicketWithTypes", "api.TestAPrecheckWithATicket"},
		},
		{
			name: "a-sniffed-type-is-not-asked-of-the-ticket", promise: 17, file: "upload/finish.go",
			old:   "capsule.MIMETypes, ticket.MIME)",
			new:   "capsule.MIMETypes)",
			tests: []string{"api.TestATicketWithTypes"},
		},
		{
			name: "a-precheck-forgets-how-many-uploads-a-ticket-is-for", promise: 17, file: "upload/precheck.go",
			old:   "		if err := p.ticket.Fits(); err != nil {",
			new:   "		if err := p.ticket.Fits(); false {",
			tests: []string{"api.TestAPrecheckWithATicket"},
		},
		{
			name: "the-veto-ignores-parents", promise: 17, file: "upload/mime.go",
			old:   "	for ; m != nil; m = m.Parent() {\n		if m.Is(name) {",
			new:   "	for ; m != nil; m = nil {\n		if m.Is(name) {",
			tests: []string{"upload.TestWhatASniffedTypeVetoes"},
		},
		{
			name: "any-text-vetoes", promise: 17, file: "upload/mime.go",
			old:   ` || s.m.Is("text/plain") }`,
			new:   ` }`,
			tests: []string{"upload.TestWhatASniffedTypeVetoes"},
		},
		{
			name: "a-type-that-sniffing-does-not-know-may-be-anything", promise: 17, file: "upload/mime.go",
			old:   "		return topLevel(found) == topLevel(declared) || isOneOf(s.m, bases())\n",
			new:   "		return true\n",
			tests: []string{"upload.TestWhatASniffedTypeVetoes"},
		},
		{
			name: "a-longest-life-counts-from-the-last-touch", promise: 17, file: "session/service.go",
			old:   "	return min(v.Running(), startOf(s)+v.cfg",
			new:   "	return min(v.Running(), s.Seen+v.cfg",
			tests: []string{"session.TestALongestLife", "session.TestALongestLifeOfAnOlderSession"},
		},
		{
			name: "a-put-outlives-the-longest-life", promise: 17, file: "session/expiry.go",
			old:   "err != nil || after.Seen >= due {",
			new:   "err != nil || after.Seen >= 0 {",
			tests: []string{"session.TestALongestLifeEndsAPut"},
		},
		{
			name: "the-start-of-a-session-is-forgotten", promise: 17, file: "store/pebblemeta/sessionrow.go",
			old:   "EntryCount: r.Entries, Seen: r.Seen, Start: r.Start,",
			new:   "EntryCount: r.Entries, Seen: r.Seen,",
			tests: []string{"store/pebblemeta.TestSessionsRoundTrip"},
		},
		{
			name: "a-row-of-a-session-of-before-is-refused", promise: 10, file: "store/pebblemeta/codec.go",
			old:   "	case row[0] > version:",
			new:   "	case row[0] != version:",
			tests: []string{"store/pebblemeta.TestAnOlderSessionRowIsRead", "store/pebblemeta.TestAnOlderCapsuleRowIsRead"},
		},
		{
			name: "a-precheck-adds-up-nothing", promise: 17, file: "upload/precheck.go",
			old:   "out.Err == nil {\n		p.take(1, f.Bytes)\n	}",
			new:   "out.Err == nil {\n		p.take(0, 0)\n	}",
			tests: []string{"upload.TestAPrecheckAddsUp", "upload.TestAPrecheckCountsMemories", "api.TestAPrecheck"},
		},
		{
			name: "a-precheck-tells-strangers-of-the-disk", promise: 15, file: "upload/precheck.go",
			old:   "	free, refused := u.freeForNew(ctx, c)\n",
			new:   "	free, refused := u.freeForNew(ctx, c)\n	if refused != nil {\n		return nil, refused\n	}\n",
			tests: []string{"upload.TestAPrecheckNeedsARole"},
		},
		{
			name: "a-refusal-does-not-say-what-is-left", promise: 17, file: "api/errors.go",
			old:   "f.Limit = &limit; left >= 0 {",
			new:   "f.Limit = &limit; left > limit {",
			tests: []string{"api.TestARefusalSaysHowMuchIsLeft"},
		},
	}
}
