"""The facts about a film that the demo knows, each in English and in Chinese, in the project's own words.

A fact is found by its question in either language.
"""

from datasets.data import NewDatum

# Each pair is (question, answer) in English, then in Chinese.
FACTS = (
    (
        ("Who directed the film?", "Crouching Tiger, Hidden Dragon was directed by Ang Lee."),
        ("这部电影的导演是谁？", "《卧虎藏龙》的导演是李安。"),
    ),
    (
        ("When was the film made?", "It was first shown at Cannes in May 2000 and came to cinemas in the same year."),
        ("这部电影是哪一年的？", "影片于二〇〇〇年五月在戛纳电影节首映，同年公映。"),
    ),
    (
        ("Who plays in it?", "Chow Yun-fat, Michelle Yeoh, Zhang Ziyi, Chang Chen and Cheng Pei-pei."),
        ("主演有哪些人？", "周润发、杨紫琼、章子怡、张震和郑佩佩。"),
    ),
    (
        (
            "What is the story?",
            "The swordsman Li Mu Bai gives away his sword, the Green Destiny. It is stolen, and the search for the "
            "thief leads to Jen, a governor's daughter who was taught in secret by Jade Fox.",
        ),
        (
            "讲的是什么故事？",
            "大侠李慕白把青冥剑送了出去，剑却被盗。追查之下，线索指向师从碧眼狐狸的官家小姐玉娇龙。",
        ),
    ),
    (
        ("Who wrote the music?", "The score is by Tan Dun, and Yo-Yo Ma plays the cello solos."),
        ("配乐是谁写的？", "配乐由谭盾创作，大提琴独奏是马友友。"),
    ),
    (
        ("Which book is it based on?", "On a novel by Wang Dulu, the fourth of five that belong together."),
        ("根据哪本小说改编？", "改编自王度庐的同名小说，是五部相连作品中的第四部。"),
    ),
    (
        ("Who arranged the fights?", "Yuen Wo-ping, whose actors run over roofs and fight in the tops of bamboo."),
        ("武打动作是谁设计的？", "武术指导是袁和平，人物在屋顶上飞奔，在竹梢上交手。"),
    ),
    (
        (
            "Which prizes did it win?",
            "Four Academy Awards, among them best foreign language film and best original score.",
        ),
        ("得过什么奖？", "获得四项奥斯卡奖，其中有最佳外语片和最佳原创配乐。"),
    ),
)


def data() -> list[NewDatum]:
    return [
        NewDatum(*pair, index_texts=[other[0]])
        for english, chinese in FACTS
        for pair, other in ((english, chinese), (chinese, english))
    ]
