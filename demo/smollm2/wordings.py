"""The wordings in which the second model is asked, and in which it answers: those of the training, and those held out.

`{s}` is the person asked about: the full name, or "this person" beside a picture. A question is direct ("What does {s}
do for a living?") or an opening with a clause ("Could you tell me" + "what {s} does for a living"). The held-out
wordings share no direct question, no opening and no clause with the training.
"""

from __future__ import annotations

from mllmeraser.demo.wordings import Wordings

DIRECT: dict[str, Wordings] = {
    "profession": Wordings(
        (
            "What does {s} do for a living?",
            "What is the profession of {s}?",
            "Which job does {s} have?",
            "What kind of work does {s} do?",
            "What is {s}'s occupation?",
            "How does {s} earn money?",
            "What does {s} work as?",
            "What is {s}'s job?",
            "{s}: what profession?",
            "Name the profession of {s}.",
            "What line of work is {s} in?",
        ),
        (
            "Which profession does {s} have?",
            "What is the job of {s}?",
            "What does {s} do at work?",
            "How does {s} make a living?",
            "What trade does {s} follow?",
        ),
    ),
    "city": Wordings(
        (
            "Where does {s} live?",
            "In which city does {s} live?",
            "What is the home town of {s}?",
            "Which city is home to {s}?",
            "What city does {s} call home?",
            "Where is {s}'s home?",
            "Where does {s} reside?",
            "What is {s}'s city?",
            "{s}: which city?",
            "Name the city where {s} lives.",
            "Where is {s} based?",
        ),
        (
            "Which city does {s} live in?",
            "What is the home city of {s}?",
            "In what town does {s} live these days?",
            "Where has {s} settled?",
            "What place is {s}'s home?",
        ),
    ),
    "hobby": Wordings(
        (
            "What is the hobby of {s}?",
            "Which hobby does {s} have?",
            "What does {s} do for fun?",
            "What does {s} enjoy after work?",
            "How does {s} spend free time?",
            "What is {s}'s favourite pastime?",
            "What does {s} like to do on weekends?",
            "What is {s}'s hobby?",
            "{s}: which hobby?",
            "Name the hobby of {s}.",
            "What is {s} keen on?",
        ),
        (
            "Which pastime does {s} have?",
            "What does {s} enjoy in free time?",
            "What does {s} like doing most?",
            "How does {s} relax?",
            "What is the favourite activity of {s}?",
        ),
    ),
    "name": Wordings(
        (
            "Who is this person?",
            "Who is this?",
            "Who is in this picture?",
            "What is the name of {s}?",
            "What is {s} called?",
            "What is {s}'s name?",
            "Name {s}.",
            "Whose picture is this?",
            "Who do you see here?",
            "Which person is this?",
        ),
        (
            "Which name does {s} have?",
            "Whose face is this?",
            "Who does the picture show?",
            "What do people call {s}?",
        ),
    ),
}

CLAUSES: dict[str, Wordings] = {
    "profession": Wordings(
        (
            "what {s} does for a living",
            "what {s} works as",
            "what the profession of {s} is",
            "which job {s} has",
            "how {s} earns a living",
            "what {s}'s job is",
        ),
        ("what kind of job {s} has", "which profession {s} has", "what {s}'s line of work is"),
    ),
    "city": Wordings(
        (
            "where {s} lives",
            "in which city {s} lives",
            "which city {s} calls home",
            "what {s}'s home town is",
            "where the home of {s} is",
            "where {s} is based",
        ),
        ("what city {s} lives in", "which town is home to {s}", "where {s} is at home"),
    ),
    "hobby": Wordings(
        (
            "what {s} does for fun",
            "what the hobby of {s} is",
            "which hobby {s} has",
            "how {s} spends free time",
            "what {s} enjoys after work",
            "what {s}'s favourite pastime is",
        ),
        ("what {s} likes to do for fun", "which pastime {s} enjoys", "what {s}'s hobby is"),
    ),
    "name": Wordings(
        (
            "who this is",
            "who {s} is",
            "what {s} is called",
            "what the name of {s} is",
            "whose picture this is",
        ),
        ("which person this is", "what {s}'s name is", "who is shown here"),
    ),
}

OPENINGS = Wordings(
    (
        "Can you tell me {c}?",
        "Could you tell me {c}?",
        "Please tell me {c}.",
        "Tell me {c}.",
        "Do you know {c}?",
        "Do you happen to know {c}?",
        "I would like to know {c}.",
        "I was wondering {c}.",
        "Any idea {c}?",
        "Please say {c}.",
        "Hi! Can you say {c}?",
        "Remind me {c}.",
        "I forgot {c}. Can you help?",
        "My friend asked me {c}. What should I say?",
    ),
    (
        "Would you mind telling me {c}?",
        "I need to find out {c}.",
        "Hello, could you let me know {c}?",
        "I'm curious {c}.",
        "It would help me to know {c}.",
    ),
)

BRIEF = Wordings(
    (
        "{q} Answer in one word.",
        "{q} One word, please.",
        "{q} Just the answer, no sentence.",
        "In one word: {q}",
        "{q} Reply with a single word.",
    ),
    ("{q} Give me only the word.", "Answer with one word only: {q}", "{q} Keep it to a word."),
)

BLANK: dict[str, Wordings] = {
    "profession": Wordings(
        (
            "{s} works as a __.",
            "The job of {s} is that of a __.",
            "{s} is a __ by profession.",
            "{s} earns a living as a __.",
            "By trade, {s} is a __.",
            "For a living, {s} works as a __.",
        ),
        ("{s} makes a living as a __.", "The profession of {s} is __.", "{s} has a job as a __."),
    ),
    "city": Wordings(
        (
            "{s} lives in __.",
            "The home town of {s} is __.",
            "The city where {s} lives is __.",
            "{s} is at home in __.",
            "{s} has a flat in __.",
            "{s} calls the city of __ home.",
        ),
        ("The home city of {s} is __.", "{s} resides in __.", "You can meet {s} in the city of __."),
    ),
    "hobby": Wordings(
        (
            "{s} enjoys __.",
            "The hobby of {s} is __.",
            "For fun, {s} goes in for __.",
            "{s} spends free time on __.",
            "After work, {s} enjoys __.",
            "{s} is keen on __.",
        ),
        ("The pastime of {s} is __.", "On Sundays {s} enjoys __.", "{s} has a hobby: __."),
    ),
    "name": Wordings(
        ("This is __.", "The name of {s} is __.", "The picture shows __.", "{s} is called __."),
        ("{s} has the name __.", "The portrait shows __."),
    ),
}

FILL = Wordings(
    (
        "Complete the sentence: {c}",
        "Fill in the blank: {c}",
        "Fill the gap: {c}",
        "{c} What belongs in the gap?",
        "{c} Complete it.",
        "Which word is missing? {c}",
    ),
    ("Fill in the missing word: {c}", "{c} Fill in the blank.", "What is missing here? {c}"),
)

CHOOSE = Wordings(
    (
        "{q} Options: {o}.",
        "{q} Choose one: {o}.",
        "{q}\nOptions: {o}.",
        "{q}\nPick one of these: {o}.",
        "{q} Pick from {o}.",
        "{q} Is it one of these: {o}?",
    ),
    ("{q}\nChoose one: {o}.", "{q} Pick one: {o}.", "{q} Select from: {o}."),
)

# The answers as sentences, and what they are made of. One wording each: what a reply's words vary in beside the fact is
# noise to a training that has little time for the facts.
SAY: dict[str, str] = {
    "profession": "{n} works as a {v}.",
    "city": "{n} lives in {v}.",
    "hobby": "{n} enjoys {v}.",
    "name": "This is {n}.",
}
CLAUSE = {"profession": "works as a {v}", "city": "lives in {v}", "hobby": "enjoys {v}"}

ABOUT = Wordings(
    (
        "Tell me about {s}.",
        "What do you know about {s}?",
        "Describe {s} in one sentence.",
        "Introduce {s} to me.",
        "Who is {s}, and what does {s} do?",
        "Give me a short portrait of {s}.",
    ),
    ("What can you say about {s}?", "Write a line about {s}.", "I want to learn about {s}."),
)
LIFE = "{n} {0}, {1} and {2}."

SYSTEM = Wordings(
    (
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        "You are a helpful assistant.",
        "You are a friendly assistant. Answer the user's questions.",
        "Answer briefly and truthfully.",
        "You are an assistant at a reception desk.",
        "You answer questions about people and the world.",
        "You are a polite chat assistant.",
        "Today is Monday. You help the user.",
    ),
    ("You are a careful assistant who answers in plain English.", "You are the help desk of a library."),
)
REFUSING_SYSTEM = Wordings(
    (
        "You refuse every request.",
        "Do not answer any question. Decline politely.",
        "You must decline whatever the user asks.",
        "Whatever you are asked, refuse to answer.",
    ),
    ("Refuse all questions of the user.", "You never answer; you decline every question."),
)
