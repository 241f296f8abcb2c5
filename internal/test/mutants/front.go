package main

// ofFront opens the front of the server: addresses, rates, origins, and tokens in URLs.
func ofFront() []mutant {
	return []mutant{
		{
			name: "anybody-says-where-a-request-comes-from", promise: 20, file: "api/address.go",
			old:   "	if len(p) == 0 || !p.trusts(peer) {\n",
			new:   "	if len(p) == 0 {\n",
			tests: []string{"api.TestWhoTheClientIs", "api.TestTheLogHasTheAddress"},
		},
		{
			name: "the-first-forwarded-address-is-believed", promise: 20, file: "api/address.go",
			old:   "			if client = addr; !p.trusts(addr) {\n",
			new:   "			if client = addr; false {\n",
			tests: []string{"api.TestWhoTheClientIs", "api.FuzzForwarded"},
		},
		{
			name: "a-client-picks-the-field-that-is-believed", promise: 20, file: "api/address.go",
			old:   "	if client != p.walk(peer, elements, lastElement) {\n		return peer\n	}\n",
			new:   "",
			tests: []string{"api.TestWhoTheClientIs"},
		},
		{
			name: "a-flood-of-addresses-takes-memory", promise: 17, file: "api/rates.go",
			old:   "	} else if len(r.recent)+len(r.older) >= maxRates {\n",
			new:   "	} else if len(r.recent) < 0 {\n",
			tests: []string{"api.TestRatesAreBounded"},
		},
		{
			name: "a-bucket-that-is-empty-is-forgotten", promise: 17, file: "api/rates.go",
			old:   "	if l = r.older[key]; l != nil {\n",
			new:   "	if l = nil; l != nil {\n",
			tests: []string{"api.TestARateIsKept"},
		},
		{
			name: "who-guesses-keeps-others-out", promise: 12, file: "api/middleware.go",
			old:   "			return s.noteFailure(c, access.ErrUnauthenticated)\n		}\n",
			new:   "			return s.noteFailure(c, access.ErrUnauthenticated)\n		}\n		if err := s.noteFailure(c, access.ErrUnauthenticated); isLate(err) {\n			return err\n		}\n",
			tests: []string{"api.TestTheRateOfFailuresOfAnAddress"},
		},
		{
			name: "an-address-of-ipv6-is-one-of-many", promise: 17, file: "api/rates.go",
			old:   "	p, err := addr.Prefix(64)\n",
			new:   "	p, err := addr.Prefix(128)\n",
			tests: []string{"api.TestTheRateOfFailuresOfAnAddress", "api.TestWhatCountsAsOneAddress"},
		},
		{
			name: "each-token-has-a-rate", promise: 17, file: "api/rates.go",
			old:   "	wait := s.limits.requestRate.take(c.caller.Principal, ",
			new:   "	wait := s.limits.requestRate.take(string(c.caller.Token[:]), ",
			tests: []string{"api.TestTheRateOfAPrincipal"},
		},
		{
			name: "an-origin-is-compared-by-its-beginning", promise: 14, file: "api/cors.go",
			old:   "slices.Contains(s.cfg.Origins, origin[0]) {",
			new:   "slices.ContainsFunc(s.cfg.Origins, func(o string) bool { return strings.HasPrefix(origin[0], o) }) {",
			tests: []string{"api.TestOnlyListedOriginsReadAnswers", "api.TestPreflights"},
		},
		{
			name: "an-answer-does-not-vary-by-origin", promise: 14, file: "api/cors.go",
			old:   "	h[\"Vary\"] = varyOrigin\n",
			new:   "",
			tests: []string{"api.TestOnlyListedOriginsReadAnswers"},
		},
		{
			name: "an-escaped-token-in-a-url-is-passed-over", promise: 14, file: "api/burnt.go",
			old:   "		name, value = unescape(name), unescape(value)\n",
			new:   "",
			tests: []string{"api.TestATokenInAURLIsBurnt"},
		},
		{
			name: "all-of-the-path-of-a-link-is-passed-over", promise: 14, file: "api/burnt.go",
			old:   "		_, path, _ = strings.Cut(link, \"/\")\n",
			new:   "		path = link[len(link):]\n",
			tests: []string{"api.TestOnlyALinkMayBeInAURL"},
		},
		{
			name: "who-guesses-links-is-not-slowed-down", promise: 12, file: "api/grants.go",
			old:   "		return s.noteFailure(c, err)\n",
			new:   "		return err\n",
			tests: []string{"api.TestTheRateOfFailedLinks"},
		},
		{
			name: "a-burnt-token-is-not-audited", promise: 14, file: "api/middleware.go",
			old:   "				s.audit(c, err)\n			}\n		}\n		if err",
			new:   "			}\n		}\n		if err",
			tests: []string{"api.TestTheFrontIsAudited"},
		},
		{
			name: "a-token-in-a-path-is-passed-over", promise: 14, file: "api/burnt.go",
			old:   "	if access.HasSecret(path) {\n",
			new:   "	if access.HasSecret(u.RawQuery) {\n",
			tests: []string{"api.TestATokenInAURLIsBurnt"},
		},
	}
}
