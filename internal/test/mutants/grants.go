package main

// ofGrants takes away what bounds upload tickets and read links, and what ends with them.
func ofGrants() []mutant {
	return []mutant{
		{
			name: "a-tickets-upload-is-counted-twice", promise: 17, file: "catalog/grant.go",
			old:   "	g.Open++\n",
			new:   "	g.Open += 2\n",
			tests: []string{"api.TestATicketUploads", "api.TestTheUploadsOfATicketAreCounted"},
		},
		{
			name: "an-abort-gives-the-ticket-nothing-back", promise: 17, file: "catalog/grant.go",
			old:   "	g.Open--\n	if finished {\n",
			new:   "	if finished {\n		g.Open--\n",
			tests: []string{"api.TestTheUploadsOfATicketAreCounted"},
		},
		{
			name: "a-finish-gives-the-upload-back", promise: 17, file: "catalog/grant.go",
			old:   "		g.Done++\n",
			new:   "",
			tests: []string{"api.TestATicketUploads"},
		},
		{
			name: "a-ticket-takes-larger-uploads", promise: 17, file: "upload/hook.go",
			old:   "	if g.Kind == catalog.Ticket && n > g.MaxBytes {\n",
			new:   "	if g.Kind == catalog.Ticket && n > g.MaxBytes+1<<30 {\n",
			tests: []string{"api.TestATicketBoundsBytes"},
		},
		{
			name: "the-quota-of-the-maker-is-not-charged", promise: 17, file: "catalog/reserve.go",
			old:   "	payer, b := Name(r.payer()), b.Of(p)\n",
			new:   "	payer, b := Name(r.Owner), b.Of(p)\n",
			tests: []string{"api.TestATicketUploads"},
		},
		{
			name: "a-stranger-makes-a-ticket", promise: 15, file: "access/grants.go",
			old:   "		if _, err := Allow(tx, by, action, g.Capsule, now); err != nil {\n			return err\n		}\n",
			new:   "		_ = action\n",
			tests: []string{"api.TestTheTableOfAccess"},
		},
		{
			name: "the-makers-role-is-not-asked-for", promise: 15, file: "catalog/capsule.go",
			old:   "	if slices.ContainsFunc(was, lost) {",
			new:   "	if len(was) == 0 {",
			tests: []string{"api.TestATicketEnds"},
		},
		{
			name: "a-ticket-may-read", promise: 15, file: "access/allow.go",
			old:   "		return a == Upload || a == Look\n",
			new:   "		return a == Upload || a == Look || a == Read\n",
			tests: []string{"memories.TestATicketReadsNothing"},
		},
		{
			name: "a-revoked-ticket-leaves-its-sessions", promise: 15, file: "catalog/grant.go",
			old:   "	if g.Kind == Ticket && g.Open > 0 {\n",
			new:   "	if g.Kind == Ticket && g.Open < 0 {\n",
			tests: []string{"api.TestATicketEnds"},
		},
		{
			name: "a-link-reads-another-memory", promise: 15, file: "memories/memories.go",
			old:   "	if c.Grant == catalog.Link && c.Memory != id {\n",
			new:   "	if c.Grant == catalog.Ticket && c.Memory != id {\n",
			tests: []string{"memories.TestALinkReadsItsMemoryAlone"},
		},
		{
			name: "the-secret-of-a-link-is-a-token", promise: 14, file: "access/grants.go",
			old: "	if errors.Is(err, catalog.ErrNotFound) || err == nil && ref.Kind != kind {\n" +
				"		return c, ErrUnauthenticated\n	}\n	if err != nil {\n		return c, err\n	}\n" +
				"	c = Caller{Principal: ref.ID, Token: hash, TokenID: ref.ID, Grant: kind}\n",
			new: "	if errors.Is(err, catalog.ErrNotFound) {\n" +
				"		return c, ErrUnauthenticated\n	}\n	if err != nil {\n		return c, err\n	}\n" +
				"	c = Caller{Principal: ref.ID, Token: hash, TokenID: ref.ID, Grant: ref.Kind}\n",
			tests: []string{"api.TestAReadLink"},
		},
		{
			name: "downloads-are-counted-after-they-went-out", promise: 17, file: "api/grants.go",
			old: "	if err := s.cfg.Access.Promise(c.req.Context(), c.caller, n, size); err != nil {\n" +
				"		return nil, err\n	}\n	return func() {\n",
			new: "	return func() {\n" +
				"		_ = s.cfg.Access.Promise(context.WithoutCancel(c.req.Context()), c.caller, n, size)\n",
			tests: []string{"api.TestTheDownloadsOfALink"},
		},
		{
			name: "what-a-reader-left-is-not-given-back", promise: 17, file: "api/grants.go",
			old:   "		if c.sent >= n {\n",
			new:   "		if n >= 0 {\n",
			tests: []string{"api.TestTheDownloadsOfALink"},
		},
		{
			name: "a-grant-that-is-not-sure-comes-back", promise: 14, file: "keeper/salvage.go",
			old:   "	case catalog.Grant:\n",
			new:   "	case catalog.Grant:\n		if v.Kind > 0 {\n			return true\n		}\n",
			tests: []string{"keeper.TestAGrantThatIsNotSureIsVoid"},
		},
		{
			name: "sessions-of-a-lost-ticket-stay", promise: 7, file: "keeper/salvage_grants.go",
			old:   "		if err == nil && v.Payer != \"\" {\n",
			new:   "		if err == nil && v.Payer == \"nobody\" {\n",
			tests: []string{"keeper.TestTheListsOfGrantsAreMadeAnew"},
		},
		{
			name: "a-check-trusts-the-counts-of-tickets", promise: 10, file: "keeper/check_grants.go",
			old:   "		if t.open == t.row.Open {\n",
			new:   "		if t.open >= 0 {\n",
			tests: []string{"keeper.TestEachContradictionOfGrantsIsFoundAndRepaired"},
		},
		{
			name: "a-small-file-is-created-with-a-ticket", promise: 5, file: "sender/transfer.go",
			old:   "	if t.size() <= maxSmall && !t.ticket {\n",
			new:   "	if t.size() <= maxSmall {\n",
			tests: []string{"sender.TestATicketSends"},
		},
	}
}
