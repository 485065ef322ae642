package app

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	sessionCookie = "session"
	maxUser       = 64      // bytes of a user name
	maxLogin      = 8 << 10 // bytes of a sign-in form
)

// The session is the user's name in a cookie, unsigned: the sample takes any name with any password, so a signature would protect
// nothing, and without one every replica of productpage reads every session.

// userOf returns who is signed in, or "".
func userOf(r *http.Request) string {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	name, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || !validUser(string(name)) {
		return ""
	}
	return string(name)
}

// login serves POST /login with the form fields username and passwd, of which only the first matters.
func login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	user := strings.TrimSpace(r.PostFormValue("username"))
	if !validUser(user) {
		http.Error(w, "please give a user name of at most 64 bytes", http.StatusBadRequest)
		return
	}
	setSession(w, base64.RawURLEncoding.EncodeToString([]byte(user)), 0)
	http.Redirect(w, r, backTo(r), http.StatusFound)
}

// logout serves /logout.
func logout(w http.ResponseWriter, r *http.Request) {
	setSession(w, "", -1)
	http.Redirect(w, r, backTo(r), http.StatusFound)
}

func setSession(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// validUser reports whether name can travel as a header value.
func validUser(name string) bool {
	return name != "" && len(name) <= maxUser && utf8.ValidString(name) && strings.TrimSpace(name) == name &&
		strings.IndexFunc(name, unicode.IsControl) < 0
}

// backTo returns the page the browser came from, if it is one of ours, else the product page. It is a path, never a full URL, so
// it cannot lead to another site.
func backTo(r *http.Request) string {
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host != r.Host || from.Path != "/productpage" {
		return "/productpage"
	}
	return from.RequestURI()
}
