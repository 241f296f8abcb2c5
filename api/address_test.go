package api

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// trusted makes proxies.
func trusted(t *testing.T, names ...string) (out proxies) {
	t.Helper()
	for _, name := range names {
		p, err := ParseProxy(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// The client is the peer, or what trusted proxies say alone.
func TestWhoTheClientIs(t *testing.T) {
	p := trusted(t, "10.0.0.0/8", "192.0.2.7", "fd00::/8", "::ffff:203.0.113.0/120")
	const peer = "10.0.0.1:1234"
	for name, row := range map[string]struct {
		peer, want     string
		list, elements []string // X-Forwarded-For, Forwarded
	}{
		"a stranger says":           {peer: "198.51.100.1:1", list: []string{"8.8.8.8"}, elements: []string{"for=8.8.8.8"}, want: "198.51.100.1"},
		"nobody says":               {peer: peer, want: "10.0.0.1"},
		"a proxy says":              {peer: peer, list: []string{"8.8.8.8"}, want: "8.8.8.8"},
		"by one address":            {peer: "192.0.2.7:1", list: []string{"8.8.8.8"}, want: "8.8.8.8"},
		"by a neighbour of it":      {peer: "192.0.2.8:1", list: []string{"8.8.8.8"}, want: "192.0.2.8"},
		"a mapped peer":             {peer: "[::ffff:10.0.0.1]:1", list: []string{"8.8.8.8"}, want: "8.8.8.8"},
		"a mapped network":          {peer: "203.0.113.9:1", list: []string{"8.8.8.8"}, want: "8.8.8.8"},
		"a mapped stranger":         {peer: "[::ffff:8.8.4.4]:1", list: []string{"8.8.8.8"}, want: "8.8.4.4"},
		"a peer with a zone":        {peer: "[fe80::1%eth0]:1", want: "fe80::1"},
		"no address":                {peer: "@", list: []string{"8.8.8.8"}, want: ""},
		"the client lies":           {peer: peer, list: []string{"1.1.1.1, 8.8.8.8"}, want: "8.8.8.8"},
		"it says to be a proxy":     {peer: peer, list: []string{"1.1.1.1,10.9.9.9,8.8.8.8"}, want: "8.8.8.8"},
		"two proxies":               {peer: peer, list: []string{"1.1.1.1,8.8.8.8, 10.2.3.4"}, want: "8.8.8.8"},
		"two lines":                 {peer: peer, list: []string{"1.1.1.1, 8.8.8.8", "10.2.3.4"}, want: "8.8.8.8"},
		"all are proxies":           {peer: peer, list: []string{"10.3.3.3,10.2.3.4"}, want: "10.3.3.3"},
		"no entry":                  {peer: peer, list: []string{""}, want: "10.0.0.1"},
		"an empty one at the end":   {peer: peer, list: []string{"8.8.8.8,"}, want: "10.0.0.1"},
		"an empty one before":       {peer: peer, list: []string{",8.8.8.8"}, want: "8.8.8.8"},
		"a malformed one":           {peer: peer, list: []string{"8.8.8.8, x, 10.2.3.4"}, want: "10.2.3.4"},
		"a name":                    {peer: peer, list: []string{"unknown"}, want: "10.0.0.1"},
		"a zone":                    {peer: peer, list: []string{"fe80::1%x"}, want: "10.0.0.1"},
		"with a port":               {peer: peer, list: []string{"8.8.8.8:80"}, want: "8.8.8.8"},
		"IPv6":                      {peer: peer, list: []string{"2001:db8::1"}, want: "2001:db8::1"},
		"IPv6 in brackets":          {peer: peer, list: []string{"[2001:db8::1]"}, want: "2001:db8::1"},
		"IPv6 with a port":          {peer: peer, list: []string{"[2001:db8::1]:80"}, want: "2001:db8::1"},
		"a mapped client":           {peer: peer, list: []string{"::ffff:8.8.8.8"}, want: "8.8.8.8"},
		"a mapped proxy":            {peer: peer, list: []string{"8.8.8.8, ::ffff:10.1.1.1"}, want: "8.8.8.8"},
		"elements":                  {peer: peer, elements: []string{`for=1.1.1.1, For=8.8.8.8;proto=https;by=10.1.1.1`}, want: "8.8.8.8"},
		"elements on lines":         {peer: peer, elements: []string{`for=1.1.1.1,for=8.8.8.8`, `for="10.1.1.1:80"`}, want: "8.8.8.8"},
		"quoted IPv6":               {peer: peer, elements: []string{`proto=http; for="[2001:db8::1]:4711"`}, want: "2001:db8::1"},
		"a comma in quotes":         {peer: peer, elements: []string{`for=8.8.8.8;host="a,for=9.9.9.9"`}, want: "8.8.8.8"},
		"a semicolon in quotes":     {peer: peer, elements: []string{`for=8.8.8.8;host="a;for=9.9.9.9"`}, want: "8.8.8.8"},
		"a quote left open":         {peer: peer, elements: []string{`for="9.9.9.9, for=8.8.8.8`}, want: "8.8.8.8"},
		"a quote left open later":   {peer: peer, elements: []string{`for="9.9.9.9`, `for=8.8.8.8`}, want: "8.8.8.8"},
		"a quote that is escaped":   {peer: peer, elements: []string{`for=8.8.8.8;host="x\",for=9.9.9.9"`}, want: "10.0.0.1"},
		"an escape of the client":   {peer: peer, elements: []string{`for=8.8.8.8;host="x\",for=9.9.9.9,y=\""`}, want: "10.0.0.1"},
		"two in an element":         {peer: peer, elements: []string{`for=8.8.8.8;for=9.9.9.9`}, want: "10.0.0.1"},
		"no for":                    {peer: peer, elements: []string{`for=9.9.9.9, by=8.8.8.8`}, want: "10.0.0.1"},
		"hidden":                    {peer: peer, elements: []string{`for=9.9.9.9, for=_hidden, for=10.1.1.1`}, want: "10.1.1.1"},
		"both agree":                {peer: peer, list: []string{"8.8.8.8"}, elements: []string{"for=8.8.8.8"}, want: "8.8.8.8"},
		"the list is the client's":  {peer: peer, list: []string{"9.9.9.9"}, elements: []string{"for=8.8.8.8"}, want: "10.0.0.1"},
		"the other is the client's": {peer: peer, list: []string{"8.8.8.8"}, elements: []string{`for="`}, want: "10.0.0.1"},
	} {
		r := &http.Request{RemoteAddr: row.peer, Header: http.Header{}}
		if row.list != nil {
			r.Header["X-Forwarded-For"] = row.list
		}
		if row.elements != nil {
			r.Header["Forwarded"] = row.elements
		}
		want := netip.Addr{}
		if row.want != "" {
			want = netip.MustParseAddr(row.want)
		}
		if got := p.client(r); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if got := proxies(nil).client(r); got != peerOf(row.peer) {
			t.Errorf("%s, and no proxy is trusted: %s", name, got)
		}
	}
}

// The part that a proxy adds counts. Nothing that the client sends before it can hide that part.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "1.1.1.1", "for=1.1.1.1", `for="`, `host="a\`, `a,b;c="d,e";for=x`, `"`, `\`, ";"} {
		f.Add(s, s)
	}
	p := proxies{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, line, more string) {
		for field, add := range map[string][2]string{
			"X-Forwarded-For": {"8.8.8.8", "10.1.1.1"}, "Forwarded": {`proto="a,b";for="8.8.8.8"`, "for=10.1.1.1"},
		} {
			for _, lines := range [][]string{
				{more, line + "," + add[0]},
				{more, line, add[0]},
				{more, line + ", " + add[0] + "," + add[1]},
				{line + "," + add[0], add[1]},
			} {
				r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{field: lines}}
				if got := p.client(r); got != netip.MustParseAddr("8.8.8.8") {
					t.Errorf("%s %q: %s", field, lines, got)
				}
			}
		}
	})
}

func TestWhatIsNoTrustedProxy(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "10.1.2.3": "10.1.2.3/32", "fd00::1": "fd00::1/128", "fd00::/8": "fd00::/8",
		"::ffff:10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.0/104": "10.0.0.0/8", "10.1.2.3/32": "10.1.2.3/32",
		"": "", "x": "", "10.0.0.1/8": "", "10.0.0.0/33": "", "10.0.0.0/": "", "/8": "", "10.0.0/8": "", "0.0.0.0/0": "",
		"::/0": "", "::ffff:0.0.0.0/96": "", "::ffff:0:0/40": "", "fe80::1%eth0": "", "fe80::%eth0/64": "",
		"10.0.0.1:80": "", "localhost": "", " 10.0.0.1": "", "010.0.0.1": "",
	} {
		p, err := ParseProxy(s)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "is no trusted proxy: ") {
				t.Errorf("%q: %s, %v", s, p, err)
			}
		} else if err != nil || p.String() != want {
			t.Errorf("%q: %s, %v, want %s", s, p, err, want)
		}
	}
}

func TestWhatIsNoOrigin(t *testing.T) {
	for s, want := range map[string]string{
		"https://app.example.com": "https://app.example.com", "HTTPS://App.Example.com": "https://app.example.com",
		"http://localhost:3000": "http://localhost:3000", "https://a.example:443": "https://a.example",
		"http://a.example:80": "http://a.example", "http://a.example:443": "http://a.example:443",
		"http://[2001:DB8:0::1]:8080": "http://[2001:db8::1]:8080", "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
		"capacitor://localhost": "capacitor://localhost", "http://192.0.2.1": "http://192.0.2.1",
		"": "", "*": "", "null": "", "NULL": "", "https://*": "", "https://*.example.com": "", "https://a.example/": "",
		"https://a.example/x": "", "https://a.example?": "", "https://a.example#": "", "https://u@a.example": "",
		"a.example": "", "//a.example": "", "https:a.example": "", "https://": "", "file://": "", "https://a.example:": "",
		"https://a.example:0": "", "https://a.example:65536": "", "https://a.example:08": "", "https://bücher.example": "",
		"https://a.example,https://b.example": "", "https://a b": "", "http://[::1": "", "http://[1.2.3.4]": "",
		"http://[fe80::1%25eth0]": "", "https://a.example\n": "",
	} {
		o, err := ParseOrigin(s)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "can't be an origin: ") {
				t.Errorf("%q: %s, %v", s, o, err)
			}
			continue
		}
		if err != nil || o != want {
			t.Errorf("%q: %s, %v, want %s", s, o, err, want)
		}
		if again, err := ParseOrigin(o); again != o || err != nil {
			t.Errorf("%q again: %q %v", o, again, err)
		}
	}
}
